"""The OpenAPI 3.1 document of the gateway, made from the msgspec types."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from gateway.admin import CHATBOT, CHATBOTS, ROTATE_KEY
from gateway.admin_types import (
    MAX_PAGE,
    ChatbotAnswer,
    ChatbotKeyAnswer,
    ChatbotPatch,
    ChatbotsAnswer,
    NewChatbot,
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
    Capture, CaptureAnswer, ErrorAnswer, Health, Organization, Session, User,
    ChatbotAnswer, ChatbotKeyAnswer, ChatbotPatch, ChatbotsAnswer, NewChatbot,
)  # fmt: skip

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
_OF_EVERY_REQUEST = {status: _ERRORS[status] for status in (400, 408, 431, 500, 503)}

_ADMIN_ERRORS = _OF_EVERY_REQUEST | {
    400: "No HTTP, or what can't be; the error's path names the first fault of a body.",
    401: "Not the admin key.",
    404: "There is no such chatbot, or no admin API: OPENBAT_ADMIN_KEY is not set.",
    503: (
        "The log did not confirm the change in time, or does not answer, or the gateway is not "
        "ready. The change may have been made all the same."
    ),
}
_BODY_ERRORS = {status: _ERRORS[status] for status in (413, 415)}
_TAKEN = {409: "Another chatbot has the name, or there are too many."}
_NOT_YET = "Written, but this gateway does not go by it yet."

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
            {200: "The messages are durable."},
            _reference("CaptureAnswer"),
            _ERRORS,
            _SOMETIMES[200],
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
                **_admin_paths(),
            },
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "key": _bearer("A chatbot's key."),
                    "adminKey": _bearer("OPENBAT_ADMIN_KEY of the gateway; it captures nothing."),
                },
            },
        }
    )


def _get(operation_id: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a path that is only read."""
    return {
        "get": {
            "operationId": operation_id,
            "summary": summary,
            "responses": _responses({200: summary}, schema, _OF_EVERY_REQUEST, []),
        }
    }


def _admin_paths() -> dict[str, Any]:
    """Return the paths of the admin API."""
    identified = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    paged = [
        _query("page", {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": 1}),
        _query(
            "limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": MAX_PAGE}
        ),
    ]
    chatbot, with_key = ChatbotAnswer.__name__, ChatbotKeyAnswer.__name__
    return {
        CHATBOTS: {
            "get": _admin("listChatbots", "The chatbots, by name.", ChatbotsAnswer.__name__)
            | {"parameters": paged},
            "post": _admin(
                "createChatbot", "Make a chatbot.", with_key, {201: "Made; its key is shown once."},
                body=NewChatbot.__name__,
            ),
        },
        CHATBOT: {
            "parameters": [identified],
            "get": _admin("getChatbot", "One chatbot.", chatbot),
            "patch": _admin(
                "changeChatbot", "Change name or settings, merged as RFC 7396 does it.", chatbot,
                {200: "Changed."}, body=ChatbotPatch.__name__,
            ),
            "delete": _admin(
                "archiveChatbot", "Archive a chatbot: it takes no more captures, its data stays.",
                chatbot, {200: "Archived, now or before."},
            ),
        },
        ROTATE_KEY: {
            "parameters": [identified],
            "post": _admin(
                "rotateKey", "Give a chatbot a new key; the old one stops.", with_key,
                {200: "The new key, shown once."},
            ),
        },
    }  # fmt: skip


def _admin(
    operation_id: str,
    summary: str,
    answer: str,
    written: Mapping[int, str] | None = None,
    body: str | None = None,
) -> dict[str, Any]:
    """Return an operation of the admin API; `written` says with which status it has changed."""
    successes = {**written, 202: _NOT_YET} if written else {200: summary}
    errors = _ADMIN_ERRORS | (_BODY_ERRORS | _TAKEN if body else {})
    operation = {
        "operationId": operation_id,
        "summary": summary,
        "security": [{"adminKey": []}],
        "responses": _responses(successes, _reference(answer), errors, []),
    }
    if body:
        operation["requestBody"] = {"required": True, "content": _json(_reference(body))}
    return operation


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _bearer(description: str) -> dict[str, str]:
    return {"type": "http", "scheme": "bearer", "description": description}


def _responses(
    successes: Mapping[int, str],
    schema: dict[str, Any],
    errors: Mapping[int, str],
    headers: list[str],
) -> dict[str, Any]:
    """Return responses by status; `successes` and `errors` describe each."""
    return {
        str(status): {
            "description": text,
            "headers": _headers(headers),
            "content": _json(schema),
        }
        for status, text in successes.items()
    } | {
        str(status): {
            "description": text,
            "headers": _headers(_ALWAYS.get(status, []), required=True)
            | _headers(_SOMETIMES.get(status, [])),
            "content": _json(_reference("ErrorAnswer")),
        }
        for status, text in errors.items()
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
