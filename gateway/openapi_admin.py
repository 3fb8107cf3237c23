"""The admin API's part of the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from gateway.admin import CHATBOT, CHATBOTS, ROTATE_KEY
from gateway.admin_types import (
    MAX_PAGE,
    ChatbotAnswer,
    ChatbotKeyAnswer,
    ChatbotPatch,
    ChatbotsAnswer,
    NewChatbot,
)
from gateway.openapi_parts import (
    OF_A_BODY,
    OF_EVERY_REQUEST,
    Refusal,
    reference,
    request_body,
    responses,
)

TYPES = (ChatbotAnswer, ChatbotKeyAnswer, ChatbotPatch, ChatbotsAnswer, NewChatbot)

_ERRORS = OF_EVERY_REQUEST | {
    400: Refusal(
        "No HTTP, or what can't be; the error's path names the first fault of a body.",
        "invalid_setting",
        "Expected `off`, null, or a rate such as `600/minute`",
        "$.settings.rate_limit",
    ),
    401: Refusal(
        "Not the admin key.",
        "unauthorized",
        "Send the admin key, Authorization: Bearer ...; a chatbot's key is not one.",
    ),
    404: Refusal(
        "There is no such chatbot, or no admin API: OPENBAT_ADMIN_KEY is not set.",
        "chatbot_not_found",
        "There is no chatbot with this id.",
    ),
    503: Refusal(
        "The log did not confirm the change in time, or does not answer, or the gateway is not "
        "ready. The change may have been made all the same.",
        "log_away",
        "The log does not answer; look before you send it again.",
    ),
}
_TAKEN = {
    409: Refusal(
        "Another chatbot has the name, or there are too many.",
        "name_taken",
        "There is a chatbot 'shop' already.",
        "$.name",
    )
}
_NOT_YET = "Written, but this gateway does not go by it yet."


def paths() -> dict[str, Any]:
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
            "get": _operation("listChatbots", "The chatbots, by name.", ChatbotsAnswer.__name__)
            | {"parameters": paged},
            "post": _operation(
                "createChatbot", "Make a chatbot.", with_key, {201: "Made; its key is shown once."},
                body=NewChatbot.__name__,
            ),
        },
        CHATBOT: {
            "parameters": [identified],
            "get": _operation("getChatbot", "One chatbot.", chatbot),
            "patch": _operation(
                "changeChatbot", "Change name or settings, merged as RFC 7396 does it.", chatbot,
                {200: "Changed."}, body=ChatbotPatch.__name__,
            ),
            "delete": _operation(
                "archiveChatbot", "Archive a chatbot: it takes no more captures, its data stays.",
                chatbot, {200: "Archived, now or before."},
            ),
        },
        ROTATE_KEY: {
            "parameters": [identified],
            "post": _operation(
                "rotateKey", "Give a chatbot a new key; the old one stops.", with_key,
                {200: "The new key, shown once."},
            ),
        },
    }  # fmt: skip


def _operation(
    operation_id: str,
    summary: str,
    answer: str,
    written: Mapping[int, str] | None = None,
    body: str | None = None,
) -> dict[str, Any]:
    """Return an operation; `written` says with which status it has changed something."""
    successes = {**written, 202: _NOT_YET} if written else {200: summary}
    errors = _ERRORS | (OF_A_BODY | _TAKEN if body else {})
    operation = {
        "operationId": operation_id,
        "tags": ["Chatbots"],
        "summary": summary,
        "security": [{"adminKey": []}],
        "responses": responses(successes, reference(answer), dict(sorted(errors.items())), []),
    }
    if body:
        operation["requestBody"] = request_body(body)
    return operation


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}
