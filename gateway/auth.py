"""From an Authorization header to a chatbot."""

import hashlib
import re
from collections.abc import Callable

from gateway.errors import RefusedError, unauthorized
from schemas.chatbots import Chatbot

_KEY = re.compile(r"ob_live_[0-9a-f]{32}")
_NO_KEY = "ob_live_" + "-" * 32
"""Looked up in place of what can't be a key: a wrong key takes the same work, whatever is wrong."""


def authenticate(
    authorization: str | None, chatbot_of: Callable[[bytes], Chatbot | None]
) -> Chatbot:
    """Return the chatbot that the header's key belongs to.

    Args:
        authorization: the header's value, None where it is missing.
        chatbot_of: looks a chatbot up by the SHA-256 of its key.

    Raises:
        RefusedError: 401 for no key, not a Bearer, unknown or revoked key; 403 for an archived
            chatbot.

    """
    if authorization is None:
        raise unauthorized("Send the chatbot's key: Authorization: Bearer ob_live_...")
    scheme, _, key = authorization.partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer":
        raise unauthorized("The Authorization header must be a Bearer: Bearer ob_live_...")
    looked_up = key if _KEY.fullmatch(key) else _NO_KEY
    chatbot = chatbot_of(hashlib.sha256(looked_up.encode()).digest())
    if chatbot is None:
        raise unauthorized("The key is unknown or was revoked.")
    if chatbot.state == "archived":
        raise RefusedError(
            403, "chatbot_archived", "The chatbot is archived: it takes no captures."
        )
    return chatbot
