"""The OpenAPI 3.1 document of the endpoint, made from the msgspec types."""

import inspect
from functools import cache
from typing import Any

import msgspec

from schemas.capture import (
    Capture,
    CaptureAnswer,
    CustomFields,
    ErrorAnswer,
    Instant,
    Members,
    Organization,
    Session,
    User,
)

_TYPES = (Capture, CaptureAnswer, ErrorAnswer, Organization, Session, User)

_REFERENCE = "#/components/schemas/{name}"

_ERRORS = {
    400: "The body is not a capture; the error's path names the first fault.",
    401: "No key, not a Bearer, an unknown or revoked key.",
    403: "The chatbot is archived.",
    408: "The body came too slowly.",
    413: "The body is over the limit.",
    415: "A content type or content encoding that is not taken.",
    429: "Over the chatbot's rate.",
    503: "The log did not confirm the capture in time. Send it again unchanged.",
}
_ERROR_HEADERS = {
    401: ["WWW-Authenticate"],
    429: ["Retry-After", "RateLimit", "RateLimit-Policy"],
    503: ["Retry-After"],
}
_REQUEST_HEADERS = {
    "Idempotency-Key": "Any non-empty value; a repeat with the same messages stores none twice.",
    "Prefer": "respond-async: don't wait for the exact count; wait=N: wait up to N seconds.",
}


@cache
def document(version: str) -> bytes:
    """Return the document, encoded."""
    _, components = msgspec.json.schema_components(
        _TYPES, schema_hook=_schema_of, ref_template=_REFERENCE
    )
    operation = {
        "operationId": "capture",
        "summary": "Store messages of a conversation.",
        "security": [{"key": []}],
        "parameters": [
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in _REQUEST_HEADERS.items()
        ],
        "requestBody": {"required": True, "content": _json("Capture")},
        "responses": {
            "200": {
                "description": "The messages are durable.",
                "headers": _headers(["Deprecation", "Preference-Applied"]),
                "content": _json("CaptureAnswer"),
            },
            **{
                str(status): {
                    "description": description,
                    "headers": _headers(_ERROR_HEADERS.get(status, [])),
                    "content": _json("ErrorAnswer"),
                }
                for status, description in _ERRORS.items()
            },
        },
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "OpenBat capture API", "version": version},
            "paths": {"/api/v1/capture": {"post": operation}},
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _schema_of(kind: type) -> dict[str, Any]:
    """Return the schema of a type that msgspec does not know by itself."""
    if kind is Instant:
        return {"type": "string", "format": "date-time"}
    if issubclass(kind, Members):
        return _reference(kind.shape.__name__)
    return {"type": "object", "description": inspect.getdoc(CustomFields)}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=name)}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(name)}}


def _headers(names: list[str]) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}} for name in names}
