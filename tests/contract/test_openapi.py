"""What the gateway says about itself."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract.client import CAPTURE
from tests.stack import Stack


@pytest.fixture(scope="module")
def anybody(stack: Stack) -> Iterator[httpx.Client]:
    """Return a client without a key."""
    with httpx.Client(base_url=stack.gateway_url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def document(anybody: httpx.Client) -> dict[str, Any]:
    answer = anybody.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its reference followed, and without the choice of null."""
    while True:
        if "$ref" in schema:
            name = str(schema["$ref"]).removeprefix("#/components/schemas/")
            schema = document["components"]["schemas"][name]
        elif len(choices := [c for c in schema.get("anyOf", []) if c.get("type") != "null"]) == 1:
            schema = choices[0]
        else:
            return schema


@pytest.fixture(scope="module")
def capture(document: dict[str, Any]) -> dict[str, Any]:
    return resolved(document, {"$ref": "#/components/schemas/Capture"})


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"]
    assert document["info"]["version"]


def test_the_capture_call_is_described(document: dict[str, Any]) -> None:
    post = document["paths"][CAPTURE]["post"]
    content = post["requestBody"]["content"]["application/json"]["schema"]
    assert content == {"$ref": "#/components/schemas/Capture"}
    statuses = {"200", "400", "401", "403", "408", "413", "415", "429", "503"}
    assert statuses <= post["responses"].keys()
    (security,) = post["security"]
    schemes = [document["components"]["securitySchemes"][name] for name in security]
    assert [(scheme["type"], scheme["scheme"]) for scheme in schemes] == [("http", "bearer")]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            node = list(node.values())
        if isinstance(node, list):
            for inner in node:
                yield from references(inner)

    assert set(references(document)) <= known


def test_the_required_fields(document: dict[str, Any], capture: dict[str, Any]) -> None:
    assert sorted(capture["required"]) == ["conversationId", "messages"]
    message = resolved(document, capture["properties"]["messages"]["items"])
    assert sorted(message["required"]) == ["content", "role"]


def test_the_limits(document: dict[str, Any], capture: dict[str, Any]) -> None:
    conversation = resolved(document, capture["properties"]["conversationId"])
    assert (conversation["type"], conversation["minLength"], conversation["maxLength"]) == (
        "string",
        1,
        255,
    )
    messages = resolved(document, capture["properties"]["messages"])
    assert (messages["type"], messages["minItems"], messages["maxItems"]) == ("array", 1, 100)
    message = resolved(document, messages["items"])["properties"]
    assert sorted(resolved(document, message["role"])["enum"]) == ["assistant", "system", "user"]
    assert resolved(document, message["content"])["type"] == "string"
    found = resolved(document, message["id"])
    assert (found["minLength"], found["maxLength"]) == (1, 255)


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("user", {"id", "name", "email", "plan", "industry", "createdAt", "mrr"}),
        ("organization", {"id", "name", "plan", "industry", "mrr"}),
        ("session", {"id", "pageUrl", "referrer", "device", "country"}),
    ],
)
def test_the_optional_parts(
    document: dict[str, Any], capture: dict[str, Any], name: str, members: set[str]
) -> None:
    part = resolved(document, capture["properties"][name])
    assert members <= part["properties"].keys()
    assert part.get("additionalProperties", True) is not False


def test_the_deprecated_fields_are_there(capture: dict[str, Any]) -> None:
    assert {"custom", "userId", "metadata"} <= capture["properties"].keys()
    assert capture.get("additionalProperties", True) is not False


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_for_anybody(anybody: httpx.Client, path: str) -> None:
    assert anybody.get(path).status_code == 200


def test_it_is_there_as_a_page_that_needs_nothing_else(anybody: httpx.Client) -> None:
    page = anybody.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert CAPTURE in page.text
