"""The OpenAPI document holds by a validator and by the types, and /docs shows all of it."""

import base64
import contextlib
import hashlib
import itertools
import json
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
import schemathesis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi
from gateway.app import make_app
from gateway.decode import decode_capture
from gateway.docs_html import STYLE, tag, written
from gateway.docs_page import page
from gateway.docs_schema import kind_of, rows_of
from gateway.metrics import GatewayMetrics
from gateway.openapi_examples import EXAMPLES
from tests.stack import ROOT

VOID = {"meta"}
DOCUMENT = openapi.document("1.2.3")
TOLD: dict[str, Any] = msgspec.json.decode(DOCUMENT)
TYPES = TOLD["components"]["schemas"]
OPERATIONS = [
    (method, path, operation)
    for path, item in TOLD["paths"].items()
    for method, operation in item.items()
    if method != "parameters"
]


class Page(HTMLParser):
    """What stands on a page, and what it would load."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for kind in set(self.open):
            self.texts.setdefault(kind, []).append(data)

    def text(self, tag: str) -> str:
        return "".join(self.texts.get(tag, []))

    def named(self, attribute: str) -> list[str]:
        return [str(given[attribute]) for _, given in self.tags if attribute in given]


@pytest.fixture(scope="module")
async def answer() -> AsyncIterator[httpx.Response]:
    async def nothing(_: Request) -> Response:
        raise AssertionError("not asked")

    async def ready() -> list[str]:
        return []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield

    app = make_app(nothing, ready, lifespan, "1.2.3", GatewayMetrics())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield await client.get("/docs")


@pytest.fixture(scope="module")
def shown(answer: httpx.Response) -> Page:
    return Page(answer.content)


def test_the_document_passes_a_validator() -> None:
    schemathesis.openapi.from_dict(TOLD).validate()
    broken = {**TOLD, "paths": {"/api/v1/capture": {"post": {"responses": 3}}}}
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict(broken).validate()


def examples(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each example of the document, with its schema."""
    if isinstance(node, dict):
        if "example" in node:
            yield node["schema"], node["example"]
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from examples(inner)


def test_every_example_is_as_its_schema_says() -> None:
    found = list(examples(TOLD["paths"]))
    for schema, example in found:
        whole = {**schema, "components": TOLD["components"]}
        jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(example)
    assert {str(example) for example in EXAMPLES.values()} <= {str(each) for _, each in found}
    decode_capture(msgspec.json.encode(EXAMPLES["Capture"]))


def test_the_errors_of_examples_are_errors_that_there_are() -> None:
    modules = [*(ROOT / "gateway").glob("*.py"), *(ROOT / "openbat").glob("*.py")]
    sources = [path.read_text() for path in modules if not path.name.startswith("openapi")]
    codes = {each["error"]["code"] for _, each in examples(TOLD["paths"]) if "error" in each}
    assert len(codes) > 10
    assert [code for code in codes if f'"{code}"' not in "".join(sources)] == []


def test_every_operation_can_be_tried() -> None:
    """Each body has an example, each way in has a key, each operation stands in a group."""
    for _, _, operation in OPERATIONS:
        assert operation["tags"]
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["example"]


def test_the_page_loads_nothing_and_runs_nothing(answer: httpx.Response, shown: Page) -> None:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert shown.open == []
    loading = {"script", "link", "img", "iframe", "object", "embed", "form", "base", "svg", "video"}
    assert not loading & {tag for tag, _ in shown.tags}
    assert shown.named("src") == shown.named("style") == shown.named("srcset") == []
    assert not [name for _, given in shown.tags for name in given if name.startswith("on")]
    assert all(link == "/openapi.json" or link.startswith("#") for link in shown.named("href"))
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_the_policy_allows_the_very_style_that_is_there(
    answer: httpx.Response, shown: Page
) -> None:
    digest = base64.b64encode(hashlib.sha256(shown.text("style").encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]


def test_every_link_within_the_page_leads_somewhere(shown: Page) -> None:
    ids = shown.named("id")
    assert len(ids) == len(set(ids))
    targets = [*shown.named("href"), *(f"#{name}" for name in shown.named("aria-labelledby"))]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)


def test_the_page_is_one_for_all_readers(shown: Page) -> None:
    tags = [tag for tag, _ in shown.tags]
    assert ("html", {"lang": "en"}) in shown.tags
    assert tags.count("main") == tags.count("nav") == tags.count("h1") == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    assert tags.count("caption") == tags.count("table")
    assert all("scope" in given for tag, given in shown.tags if tag == "th")
    assert "prefers-color-scheme: dark" in STYLE
    assert "@media print" in STYLE


def parsed(text: str) -> Any:
    """Return what JSON holds, None for what is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_an_operation_is_shown_whole(
    shown: Page, method: str, path: str, operation: dict[str, Any]
) -> None:
    headings, rest = shown.text("h3"), shown.text("main")
    assert f"{method.upper()}{path}" in headings
    assert f"{method.upper()} {path}" in shown.text("nav")
    assert operation["summary"] in rest
    for parameter in operation.get("parameters", []):
        assert f"{parameter['name']} in the {parameter['in']}" in shown.text("th")
    for status, response in operation["responses"].items():
        assert f"{status} " in rest
        assert response["description"] in rest
        for header in response["headers"]:
            assert header in shown.text("code")
        content = response["content"]["application/json"]
        if "example" in content:
            written_out = [text for kind in ("pre", "code") for text in shown.texts[kind]]
            assert content["example"] in [parsed(text) for text in written_out]
        if int(status) < 400:
            for row in rows_of(content["schema"], TYPES):
                assert row.path.rpartition(".")[2] in shown.text("th")


def test_a_body_is_shown_with_its_nested_types_and_limits() -> None:
    rows = {row.path: row for row in rows_of({"$ref": "#/components/schemas/Capture"}, TYPES)}
    assert (rows["conversationId"].is_required, rows["custom"].is_required) == (True, False)
    assert rows["conversationId"].limits == "1 to 255 characters"
    assert (rows["messages"].kind, rows["messages"].limits) == ("array of object", "1 to 100 items")
    assert rows["messages[].role"].kind == '"assistant" | "system" | "user"'
    assert rows["messages[].sentAt"].kind == "string, date-time or null"
    assert (rows["user.mrr"].kind, rows["user.mrr"].depth) == ("number or null", 1)
    assert rows["userId"].is_deprecated
    assert rows["user"].description.startswith("Who talks")
    settings = {
        row.path: row for row in rows_of({"$ref": "#/components/schemas/ChatbotPatch"}, TYPES)
    }
    fields = settings["settings.custom_fields"]
    assert fields.kind == 'object of "string" | "number" | "boolean" or null or null'
    assert fields.limits == "at most 1,000 members"
    assert settings["settings.cost_per_day"].limits == "at least 0, under 1,000,000,000,000,000"


def test_a_choice_of_types_is_told() -> None:
    refused = {"anyOf": [{"$ref": "#/components/schemas/ErrorAnswer"}, {"type": "string"}]}
    assert kind_of(refused, TYPES) == "ErrorAnswer or string"


def test_the_commands_are_for_a_shell() -> None:
    commands = [text for text in Page(page(DOCUMENT)).texts["pre"] if text.startswith("curl")]
    assert len(commands) == len(OPERATIONS)
    (capture,) = [text for text in commands if "/api/v1/capture" in text]
    words = shlex.split(capture)
    assert words[:2] == ["curl", "$OPENBAT_URL/api/v1/capture"]
    assert "Authorization: Bearer $OPENBAT_API_KEY" in words
    assert msgspec.json.decode(words[words.index("-d") + 1]) == EXAMPLES["Capture"]
    (patch,) = [text for text in commands if "-X PATCH" in text]
    assert shlex.split(patch)[1] == "$OPENBAT_URL/api/v1/chatbots/$id"


def test_text_is_no_markup() -> None:
    found = Page(written("<b>&", tag("p", "<script>x</script>", tag("b", "&amp;"), "<i>", id='"')))
    assert [tag for tag, _ in found.tags] == [
        "html", "head", "meta", "meta", "title", "style", "body", "p", "b",
    ]  # fmt: skip
    assert found.text("p") == "<script>x</script>&amp;<i>"
    assert '"' in found.named("id")


def test_the_page_is_made_once() -> None:
    assert page(DOCUMENT) is page(openapi.document("1.2.3"))
