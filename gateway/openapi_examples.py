"""Examples of bodies, by the name of their type; tests hold them to the types."""

from typing import Any

_SHOWN = "ob_live_000000"
_CHATBOT: dict[str, Any] = {
    "id": "6d0f9c2e-3c55-4a3e-9a4b-0f2a8c7d1e90",
    "name": "shop",
    "api_key_prefix": _SHOWN,
    "settings": {
        "rate_limit": "600/minute",
        "remember_days": None,
        "analysis": {
            "sentiment": True,
            "intent": True,
            "topics": True,
            "flags": True,
            "behaviour": True,
            "resolution": False,
        },
        "intents": ["order", "return"],
        "flags": [],
        "tokens_per_day": 100_000,
        "cost_per_day": None,
        "custom_fields": {"plan": "string", "seats": "number"},
    },
    "created_at": "2026-01-02T03:04:05Z",
    "state": "active",
}

EXAMPLES: dict[str, Any] = {
    "Capture": {
        "conversationId": "conv_1",
        "messages": [
            {
                "id": "msg_1",
                "role": "user",
                "content": "How do I cancel?",
                "sentAt": "2026-01-02T03:04:05Z",
            },
            {"id": "msg_2", "role": "assistant", "content": "In Settings, under Billing."},
        ],
        "user": {"id": "user_1", "email": "ann@example.com", "plan": "pro", "mrr": 49.5},
        "session": {"pageUrl": "https://example.com/billing", "device": "phone"},
        "custom": {"seats": 5},
    },
    "CaptureAnswer": {
        "ok": True,
        "conversationId": "9aee1357-c5c8-5274-98fd-348f98783be9",
        "messagesStored": 2,
        "analysisQueued": True,
        "warnings": ["Custom field 'seats' not in schema"],
    },
    "Health": {"ok": True},
    "NotReadyAnswer": {
        "ok": False,
        "error": {"code": "not_ready", "message": "Kafka does not answer."},
        "reasons": ["Kafka does not answer."],
    },
    "NewChatbot": {"name": "shop"},
    "ChatbotPatch": {
        "name": "store",
        "settings": {
            "rate_limit": "600/minute",
            "analysis": {"resolution": False},
            "custom_fields": {"plan": "string", "seats": "number", "trial": None},
        },
    },
    "ChatbotAnswer": {"ok": True, "chatbot": _CHATBOT},
    "ChatbotKeyAnswer": {
        "ok": True,
        "chatbot": _CHATBOT | {"state": "pending"},
        "apiKey": _CHATBOT["api_key_prefix"] + "0" * 26,
    },
    "ChatbotsAnswer": {"ok": True, "chatbots": [_CHATBOT], "page": 1, "limit": 100, "total": 1},
}


def error_example(code: str, message: str, path: str | None = None) -> dict[str, Any]:
    at = {} if path is None else {"path": path}
    return {"ok": False, "error": {"code": code, "message": message, **at}}
