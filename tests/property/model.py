"""What the contract promises of conversations, in sets and lists.

Written from the contract alone: it knows the records that travel, and nothing of the worker.
"""

from dataclasses import dataclass, field
from typing import Any

from schemas.records import Captured

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


class Model:
    """All conversations, after the captures that it was told of."""

    def __init__(self) -> None:
        self.conversations: dict[Name, ModelConversation] = {}

    def capture(self, captured: Captured, place: tuple[int, int, int]) -> int:
        """Take in one capture; return how many of its messages were new."""
        name = captured.chatbot_id, captured.external_id
        conversation = self.conversations.setdefault(name, ModelConversation())
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
        for group, values in captured.fields.items():
            conversation.fields.setdefault(group, {}).update(values)
        return stored
