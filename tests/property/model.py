"""What the contract promises of conversations, in sets and lists.

Written from the contract alone: it knows the records that travel, and nothing of the worker.
"""

from dataclasses import dataclass, field
from typing import Any

from schemas.records import Captured

DAY = 24 * 60 * 60 * 1_000_000

Name = tuple[bytes, str]
"""A chatbot and its own id of a conversation."""

Place = tuple[int, int, int, int]
"""Generation, offset, capture in the record, message in the capture."""


@dataclass
class ModelMessage:
    place: Place
    id: str
    role: str
    content: str
    sent_at: int
    received_at: int


@dataclass
class ModelConversation:
    ids: set[str] = field(default_factory=set)
    messages: list[ModelMessage] = field(default_factory=list)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed_at: int = 0
    remember_days: int = 0


class Model:
    """All conversations, after the captures that it was told of."""

    def __init__(self) -> None:
        self.conversations: dict[Name, ModelConversation] = {}

    def capture(self, captured: Captured, place: tuple[int, int, int]) -> int:
        """Take in one capture; return how many of its messages were new."""
        name = captured.chatbot_id, captured.external_id
        conversation = self.conversations.setdefault(name, ModelConversation())
        idle_days = (captured.received_at - conversation.changed_at) / DAY
        if conversation.remember_days and idle_days > conversation.remember_days:
            conversation.ids.clear()
        stored = 0
        for index, message in enumerate(captured.messages):
            if message.id in conversation.ids:
                continue
            conversation.ids.add(message.id)
            conversation.messages.append(
                ModelMessage(
                    (*place, index),
                    message.id,
                    message.role,
                    message.content,
                    message.sent_at,
                    captured.received_at,
                )
            )
            stored += 1
        before = repr(conversation.fields)
        for group, values in captured.fields.items():
            conversation.fields.setdefault(group, {}).update(values)
        if stored or repr(conversation.fields) != before:
            conversation.changed_at = max(conversation.changed_at, captured.received_at)
            conversation.remember_days = captured.remember_days
        return stored
