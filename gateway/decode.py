"""From a body's bytes to the capture that is published: decoded once, checked once. Pure."""

from collections.abc import Iterator
from functools import lru_cache
from uuid import UUID

import msgspec
import uuid_utils

from gateway.json_body import decoded
from gateway.members import decode_hook, fields_of
from schemas.capture import Capture, Message
from schemas.chatbots import Chatbot
from schemas.records import Captured, CapturedMessage

_decode = msgspec.json.Decoder(Capture, dec_hook=decode_hook).decode
MAX_IDS = 10_000
"""Chatbots whose id is kept parsed."""


def decode_capture(body: bytes) -> Capture:
    """Return the capture that the body holds.

    Raises:
        RefusedError: 400, with the path of the first fault.

    """
    return decoded(_decode, body)


def captured_of(
    capture: Capture, chatbot: Chatbot, received_at: int, idempotency_key: str | None
) -> tuple[Captured, dict[str, str]]:
    """Return what is published of a capture, and its warnings by field.

    Args:
        capture: as it was decoded.
        chatbot: whose key the request carried; its settings in force are stamped in.
        received_at: microseconds since the epoch.
        idempotency_key: the request's, None or empty where it has none.

    """
    chatbot_id = _uuid(chatbot.id)
    conversation_id = conversation_id_of(chatbot_id, capture.conversation_id)
    fields, warnings = fields_of(capture, chatbot.schema)
    captured = Captured(
        chatbot_id=chatbot_id.bytes,
        conversation_id=conversation_id.bytes,
        external_id=capture.conversation_id,
        received_at=received_at,
        analysis=chatbot.settings.is_analysed,
        messages=list(_messages(capture.messages, conversation_id, received_at, idempotency_key)),
        fields=fields,
        remember_days=chatbot.settings.remember_days,
    )
    return captured, warnings


@lru_cache(MAX_IDS)
def _uuid(text: str) -> uuid_utils.UUID:
    return uuid_utils.UUID(text)


def conversation_id_of(chatbot_id: UUID | uuid_utils.UUID, external_id: str) -> uuid_utils.UUID:
    """Return our id of a conversation: UUIDv5 of the chatbot's id and the client's id."""
    if isinstance(chatbot_id, UUID):
        chatbot_id = uuid_utils.UUID(bytes=chatbot_id.bytes)
    return uuid_utils.uuid5(chatbot_id, external_id)


def distinct_messages(captured: Captured) -> int:
    """Return how many messages could be new at most."""
    return len({message.id for message in captured.messages})


def _messages(
    messages: list[Message],
    conversation_id: uuid_utils.UUID,
    received_at: int,
    idempotency_key: str | None,
) -> Iterator[CapturedMessage]:
    for index, message in enumerate(messages):
        sent_at = received_at if message.sent_at is None else int(message.sent_at)
        message_id, remembered = message.id, True
        if message_id is None and idempotency_key:
            name = msgspec.json.encode((idempotency_key, index, message.role, message.content))
            message_id = str(uuid_utils.uuid5(conversation_id, name.decode()))
        elif message_id is None:
            message_id, remembered = str(uuid_utils.uuid7()), False
        yield CapturedMessage(message_id, message.role, message.content, sent_at, remembered)
