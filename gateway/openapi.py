"""The OpenAPI 3.1 document of the gateway, made from the msgspec types."""

import inspect
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

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

_TYPES = (Capture, CaptureAnswer, ErrorAnswer, Health, Organization, Session, User)

_REFERENCE = "#/components/schemas/{name}"

_ERRORS = {
    400: "No HTTP, or a body that is not a capture; the error's path names its first fault.",
    401: "No key, not a Bearer, an unknown or revoked key.",
    403: "The chatbot is archived.",
    408: "The headers or the body came too slowly.",
    413: "The body is over the limit.",
    415: "A content type or content encoding that is not taken.",
    429: "Over the chatbot's rate.",
    431: "The headers are over the limit.",
    500: "A fault of the gateway's own. Send it again unchanged.",
    503: (
        "The log did not confirm the capture in time, the gateway is not ready, or has too many "
        "clients. Send it again unchanged."
    ),
}
_OF_EVERY_REQUEST = (400, 408, 431, 500, 503)

_ALWAYS = {
    401: ["WWW-Authenticate"],
    429: ["Retry-After", "RateLimit", "RateLimit-Policy"],
    503: ["Retry-After"],
}
_SOMETIMES = {
    200: ["Deprecation", "Preference-Applied"],
    415: ["Accept", "Accept-Encoding"],
}
_HEADERS: dict[str, dict[str, Any]] = {
    "Accept": {"const": "application/json"},
    "Deprecation": {"pattern": "^@[0-9]+$"},
    "Retry-After": {"pattern": "^[0-9]+$"},
    "WWW-Authenticate": {"const": "Bearer"},
}
"""What is known of the values of response headers."""

_REQUEST_HEADERS = {
    "Idempotency-Key": "Any non-empty value; a repeat with the same messages stores none twice.",
    "Prefer": "respond-async: don't wait for the exact count; wait=N: wait up to N seconds.",
    "Content-Encoding": "gzip or zstd, in any case; left out where the body is sent as it is.",
}


@cache
def document(version: str) -> bytes:
    """Return the document, encoded."""
    _, components = msgspec.json.schema_components(
        _TYPES, schema_hook=_schema_of, ref_template=_REFERENCE
    )
    capture = {
        "operationId": "capture",
        "summary": "Store messages of a conversation.",
        "security": [{"key": []}],
        "parameters": [
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in _REQUEST_HEADERS.items()
        ],
        "requestBody": {"required": True, "content": _json(_reference("Capture"))},
        "responses": _responses(
            "The messages are durable.", _reference("CaptureAnswer"), _ERRORS, _SOMETIMES[200]
        ),
    }
    health = _reference("Health")
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "OpenBat capture API", "version": version},
            "paths": {
                "/api/v1/capture": {"post": capture},
                "/healthz": _get("health", "Whether the gateway is alive.", health),
                "/readyz": _get("readiness", "Whether captures are taken.", health),
                "/openapi.json": _get("document", "This document.", {"type": "object"}),
            },
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _get(operation_id: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a path that is only read."""
    return {
        "get": {
            "operationId": operation_id,
            "summary": summary,
            "responses": _responses(summary, schema, _OF_EVERY_REQUEST, []),
        }
    }


def _responses(
    description: str, schema: dict[str, Any], errors: Iterable[int], headers: list[str]
) -> dict[str, Any]:
    success = {"description": description, "headers": _headers(headers), "content": _json(schema)}
    return {"200": success} | {
        str(status): {
            "description": _ERRORS[status],
            "headers": _headers(_ALWAYS.get(status, []), required=True)
            | _headers(_SOMETIMES.get(status, [])),
            "content": _json(_reference("ErrorAnswer")),
        }
        for status in errors
    }


def _schema_of(kind: type) -> dict[str, Any]:
    """Return the schema of a type that msgspec does not know by itself."""
    if kind is Instant:
        return {"type": "string", "format": "date-time"}
    if issubclass(kind, Members):
        return _reference(kind.shape.__name__)
    return {"type": "object", "description": inspect.getdoc(CustomFields)}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=name)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _headers(names: list[str], *, required: bool = False) -> dict[str, Any]:
    return {
        name: {"required": required, "schema": {"type": "string"} | _HEADERS.get(name, {})}
        for name in names
    }
