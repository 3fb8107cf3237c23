"""The OpenAPI 3.1 document of the gateway, made from the msgspec types."""

import inspect
from functools import cache
from typing import Any

import msgspec

from gateway import openapi_admin
from gateway.health import NotReadyAnswer
from gateway.openapi_examples import EXAMPLES
from gateway.openapi_parts import (
    ERRORS,
    JSON,
    OF_EVERY_REQUEST,
    REFERENCE,
    bearer,
    json_content,
    reference,
    request_body,
    responses,
)
from schemas.capture import (
    Capture,
    CaptureAnswer,
    CustomFields,
    ErrorAnswer,
    Health,
    Instant,
    Members,
    Organization,
    Session,
    User,
)

_TYPES = (
    Capture, CaptureAnswer, ErrorAnswer, Health, NotReadyAnswer, Organization, Session, User,
    *openapi_admin.TYPES,
)  # fmt: skip

_REQUEST_HEADERS = {
    "Idempotency-Key": "Any non-empty value; a repeat with the same messages stores none twice.",
    "Prefer": "respond-async: don't wait for the exact count; wait=N: wait up to N seconds.",
    "Content-Encoding": "gzip or zstd, in any case; left out where the body is sent as it is.",
    "X-Request-Id": "1 to 128 visible characters of ASCII; comes back in the answer.",
}


@cache
def document(version: str) -> bytes:
    """Return the document, encoded."""
    _, components = msgspec.json.schema_components(
        _TYPES, schema_hook=_schema_of, ref_template=REFERENCE
    )
    health = reference(Health.__name__)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "OpenBat capture API", "version": version},
            "paths": {
                "/api/v1/capture": {"post": _capture()},
                **openapi_admin.paths(),
                "/healthz": _get("health", "Whether the gateway is alive.", health),
                "/readyz": _readiness(health),
                "/openapi.json": _get("document", "This document.", {"type": "object"}),
            },
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "key": bearer("A chatbot's key."),
                    "adminKey": bearer("OPENBAT_ADMIN_KEY of the gateway; it captures nothing."),
                },
            },
        }
    )


def _capture() -> dict[str, Any]:
    return {
        "operationId": "capture",
        "tags": ["Captures"],
        "summary": "Store messages of a conversation.",
        "security": [{"key": []}],
        "parameters": [
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in _REQUEST_HEADERS.items()
        ],
        "requestBody": request_body(Capture.__name__),
        "responses": responses(
            {200: "The messages are durable."},
            reference(CaptureAnswer.__name__),
            ERRORS,
            ["Deprecation", "Preference-Applied"],
        ),
    }


def _readiness(health: dict[str, Any]) -> dict[str, Any]:
    path = _get("readiness", "Whether captures are taken.", health)
    # Beyond its connections a gateway answers without looking at the path.
    refused = {"anyOf": [reference(NotReadyAnswer.__name__), reference(ErrorAnswer.__name__)]}
    content = json_content(refused)
    content[JSON]["example"] = EXAMPLES[NotReadyAnswer.__name__]
    path["get"]["responses"]["503"]["content"] = content
    return path


def _get(operation_id: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a path that is only read."""
    return {
        "get": {
            "operationId": operation_id,
            "tags": ["Gateway"],
            "summary": summary,
            "responses": responses({200: summary}, schema, OF_EVERY_REQUEST, []),
        }
    }


def _schema_of(kind: type) -> dict[str, Any]:
    """Return the schema of a type that msgspec does not know by itself."""
    if kind is Instant:
        return {"type": "string", "format": "date-time"}
    if issubclass(kind, Members):
        return reference(kind.shape.__name__)
    return {"type": "object", "description": inspect.getdoc(CustomFields)}
