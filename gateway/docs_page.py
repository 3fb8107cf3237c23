"""The page at /docs: the OpenAPI document, written out for a person."""

import json
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from gateway.docs_html import table, tag, written
from gateway.docs_schema import Row, Schema, kind_of, rows_of

_METHODS = ("get", "post", "put", "patch", "delete")
_KEYS = {"key": "OPENBAT_API_KEY", "adminKey": "OPENBAT_ADMIN_KEY"}
_JSON = "application/json"
_MAX_INDENT = 4


@cache
def page(document: bytes) -> bytes:
    """Return the page of an encoded OpenAPI document, in UTF-8; it is made once."""
    told = msgspec.json.decode(document)
    title = f"{told['info']['title']} {told['info']['version']}"
    operations = list(_operations(told))
    groups = dict.fromkeys(group for group, _, _ in operations)
    contents, sections = [], []
    for group in groups:
        found = [operation for kind, operation, _ in operations if kind == group]
        contents += [tag("p", group), tag("ul", *(_link(operation) for operation in found))]
        sections += [tag("h2", group), *(shown for kind, _, shown in operations if kind == group)]
    return written(
        title,
        tag("a", "To the operations", href="#operations", class_="skip"),
        tag("nav", tag("a", "openapi.json", href="/openapi.json"), *contents, aria_label=title),
        tag(
            "main",
            tag("h1", title),
            tag(
                "p",
                "The examples are for a shell that knows the gateway's address as ",
                tag("code", "OPENBAT_URL"), ", a chatbot's key as ", tag("code", _KEYS["key"]),
                " and the operator's as ", tag("code", _KEYS["adminKey"]), ". The same for ",
                "programs is ", tag("a", "openapi.json", href="/openapi.json"), ".",
            ),
            *sections,
            id="operations",
        ),
    )  # fmt: skip


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, Element, Element]]:
    """Yield for each operation its group, its heading and all of it."""
    types = document["components"]["schemas"]
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method not in item:
                continue
            operation = item[method]
            parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
            name = operation["operationId"]
            heading = tag(
                "h3", tag("span", method.upper(), class_="method"), tag("code", path), id=name
            )
            section = tag(
                "section",
                heading,
                tag("p", operation["summary"]),
                *_security(operation, document["components"]["securitySchemes"]),
                tag("pre", _curl(method, path, operation), tabindex="0"),
                *_parameters(parameters, types),
                *_request(operation, types),
                *_answers(operation, types),
                aria_labelledby=name,
            )
            yield operation["tags"][0], heading, section


def _link(heading: Element) -> Element:
    return tag("li", tag("a", " ".join(heading.itertext()), href=f"#{heading.get('id')}"))


def _security(operation: Mapping[str, Any], schemes: Mapping[str, Any]) -> Iterator[Element]:
    for choice in operation.get("security", []):
        for name in choice:
            yield tag(
                "p", tag("code", "Authorization: Bearer"), f" {schemes[name]['description']}",
                class_="quiet",
            )  # fmt: skip


def _curl(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """Return a command for a shell."""
    # Expanded by the shell, so that ids can be put in.
    address = path.replace("{", "$").replace("}", "")
    lines = [f'curl "$OPENBAT_URL{address}"']
    has_body = "requestBody" in operation
    if method != ("post" if has_body else "get"):
        lines[0] += f" -X {method.upper()}"
    for choice in operation.get("security", []):
        lines += [f'-H "Authorization: Bearer ${_KEYS[name]}"' for name in choice]
    if has_body:
        body = json.dumps(operation["requestBody"]["content"][_JSON]["example"], indent=1)
        lines += [f"-H 'Content-Type: {_JSON}'", f"-d {shlex.quote(body)}"]
    return " \\\n  ".join(lines)


def _parameters(parameters: list[Any], types: Mapping[str, Schema]) -> Iterator[Element]:
    if not parameters:
        return
    yield tag("h4", "Parameters")
    shape = {
        "type": "object",
        "properties": {
            each["name"]: {**each["schema"], "description": each.get("description", "")}
            for each in parameters
        },
        "required": [each["name"] for each in parameters if each.get("required")],
    }
    places = {each["name"]: each["in"] for each in parameters}
    rows = [_row(row, f" in the {places[row.path]}") for row in rows_of(shape, types)]
    yield table(["name", "value", "meaning"], rows, "Header, path and query parameters")


def _request(operation: Mapping[str, Any], types: Mapping[str, Schema]) -> Iterator[Element]:
    if "requestBody" in operation:
        yield tag("h4", "Request body")
        yield _shape(operation["requestBody"]["content"][_JSON]["schema"], types)


def _answers(operation: Mapping[str, Any], types: Mapping[str, Schema]) -> Iterator[Element]:
    refusals = []
    for status, answer in operation["responses"].items():
        name = f"{status} {HTTPStatus(int(status)).phrase}"
        content = answer["content"][_JSON]
        if int(status) >= 400:
            refusals.append(_refusal(name, answer, content))
            continue
        yield tag("h4", name)
        yield tag("p", answer["description"])
        yield from _headers(answer)
        if "example" in content:
            yield tag("pre", json.dumps(content["example"], indent=1), tabindex="0")
        if rows_of(content["schema"], types):
            yield tag("details", tag("summary", "Members"), _shape(content["schema"], types))
    yield tag("h4", "Errors")
    yield table(["status", "when", "for example"], refusals, f"{_JSON}: ErrorAnswer")


def _headers(answer: Mapping[str, Any]) -> Iterator[Element]:
    for name, header in answer["headers"].items():
        when = "" if header["required"] else " where it applies"
        said = f": {header['description']}" if "description" in header else ""
        yield tag("div", "with ", tag("code", name), when, said, class_="quiet")


def _header_names(answer: Mapping[str, Any]) -> Iterator[Element]:
    """Yield the same in one line: errors share most of their headers, and say it often."""
    names = [tag("code", name) for name in answer["headers"]]
    for name in names[:-1]:
        name.tail = ", "
    if names:
        yield tag("div", "with ", *names, class_="quiet")


def _refusal(name: str, answer: Mapping[str, Any], content: Mapping[str, Any]) -> Element:
    example = json.dumps(content["example"])
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", answer["description"], *_header_names(answer)),
        tag("td", tag("code", example)),
    )


def _shape(schema: Schema, types: Mapping[str, Schema]) -> Element:
    rows = [_row(row) for row in rows_of(schema, types)]
    return table(["member", "value", "meaning"], rows, f"{_JSON}: {kind_of(schema, types)}")


def _row(row: Row, place: str = "") -> Element:
    marks = [
        tag("div", mark, class_="tag")
        for mark, is_so in (("required", row.is_required), ("deprecated", row.is_deprecated))
        if is_so
    ]
    name = tag("code", row.path.rpartition(".")[2])
    limits = [tag("div", row.limits, class_="quiet")] if row.limits else []
    return tag(
        "tr",
        tag("th", name, place, *marks, scope="row", class_=f"in{min(row.depth, _MAX_INDENT)}"),
        tag("td", row.kind, *limits, class_="kind"),
        tag("td", row.description),
    )
