"""What the operations of the OpenAPI document are put together from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.openapi_examples import EXAMPLES, error_example

REFERENCE = "#/components/schemas/{name}"
JSON = "application/json"


class Refusal(NamedTuple):
    """An answer that is no success.

    Attributes:
        when: for a person, when it is given.
        code, message, path: of an example.

    """

    when: str
    code: str
    message: str
    path: str | None = None


ERRORS = {
    400: Refusal(
        "No HTTP, or a body that is not a capture; the error's path names its first fault.",
        "invalid_body", "Object missing required field `role`", "$.messages[1]",
    ),
    401: Refusal(
        "No key, not a Bearer, an unknown or revoked key.",
        "unauthorized", "The key is unknown or was revoked.",
    ),
    403: Refusal(
        "The chatbot is archived.",
        "chatbot_archived", "The chatbot is archived: it takes no captures.",
    ),
    408: Refusal(
        "The headers or the body came too slowly.",
        "body_too_slow", "The body did not arrive within 10 s.",
    ),
    413: Refusal(
        "The body is over the limit.",
        "body_too_large",
        "The body is over 1048576 bytes: send the messages in several captures.",
    ),
    415: Refusal(
        "A content type or content encoding that is not taken.",
        "unsupported_content_type", "Send JSON in UTF-8, with Content-Type: application/json.",
    ),
    429: Refusal(
        "Over the chatbot's rate. Send it again unchanged after Retry-After.",
        "rate_limited", "Over the chatbot's rate of 600/minute: try again in 12 s.",
    ),
    431: Refusal(
        "The headers are over the limit.",
        "headers_too_large", "The headers are over 65536 bytes.",
    ),
    500: Refusal(
        "A fault of the gateway's own. Send it again unchanged.",
        "internal_error", "The gateway failed: send it again.",
    ),
    503: Refusal(
        "The log did not confirm the capture in time, the gateway is not ready, or has too many "
        "clients. Send it again unchanged.",
        "starting", "The gateway is starting: send it again.",
    ),
}  # fmt: skip
"""By status, of a capture."""

OF_EVERY_REQUEST = {status: ERRORS[status] for status in (400, 408, 431, 500, 503)}
OF_A_BODY = {status: ERRORS[status] for status in (413, 415)}

_ALWAYS = {
    401: ["WWW-Authenticate"],
    429: ["Retry-After", "RateLimit", "RateLimit-Policy"],
    503: ["Retry-After"],
}
_SOMETIMES = {415: ["Accept", "Accept-Encoding"]}
_HEADERS: dict[str, dict[str, Any]] = {
    "Accept": {"const": JSON},
    "Deprecation": {"pattern": "^@[0-9]+$"},
    "Retry-After": {"pattern": "^[0-9]+$"},
    "WWW-Authenticate": {"const": "Bearer"},
}
"""What is known of the values of response headers."""
_MEANINGS = {
    "Deprecation": "Since when a member that was sent is deprecated (RFC 9745).",
    "Preference-Applied": "What of Prefer was gone by (RFC 7240).",
    "Retry-After": "Seconds to wait before the same request is sent again.",
    "X-Request-Id": "The request's, as it was sent, or one of the gateway's; its log names it.",
}


def responses(
    successes: Mapping[int, str],
    schema: dict[str, Any],
    errors: Mapping[int, Refusal],
    headers: list[str],
) -> dict[str, Any]:
    """Return responses by status.

    Args:
        successes: a description by status.
        schema: of each success.
        errors: by status; the headers that each has, or may have, are known here.
        headers: that a success may have.

    """
    of_every_answer = _headers(["X-Request-Id"], required=True)
    return {
        str(status): {
            "description": text,
            "headers": of_every_answer | _headers(headers),
            "content": json_content(schema),
        }
        for status, text in successes.items()
    } | {
        str(status): {
            "description": refusal.when,
            "headers": of_every_answer
            | _headers(_ALWAYS.get(status, []), required=True)
            | _headers(_SOMETIMES.get(status, [])),
            "content": {
                JSON: {"schema": reference("ErrorAnswer"), "example": error_example(*refusal[1:])}
            },
        }
        for status, refusal in errors.items()
    }


def reference(name: str) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(name=name)}


def json_content(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a body of a schema, with the example of its type where there is one."""
    name = schema.get("$ref", "").rpartition("/")[2]
    example = {"example": EXAMPLES[name]} if name in EXAMPLES else {}
    return {JSON: {"schema": schema, **example}}


def request_body(name: str) -> dict[str, Any]:
    return {"required": True, "content": json_content(reference(name))}


def bearer(description: str) -> dict[str, str]:
    return {"type": "http", "scheme": "bearer", "description": description}


def _headers(names: list[str], *, required: bool = False) -> dict[str, Any]:
    return {
        name: ({"description": _MEANINGS[name]} if name in _MEANINGS else {})
        | {"required": required, "schema": {"type": "string"} | _HEADERS.get(name, {})}
        for name in names
    }
