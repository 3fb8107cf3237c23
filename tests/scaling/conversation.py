"""Conversations that know what was answered of them."""

from typing import Any, NamedTuple

PAIR = 2
"""New messages of a capture: a question and its answer."""


class Chatbot(NamedTuple):
    """A chatbot's name, which begins its conversations' names, and its key."""

    name: str
    key: str


class Conversation:
    """One conversation, and what was answered of it.

    Attributes:
        name: unique, its chatbot's first.
        turns: how many pairs of messages were taken.
        exact: the sum of `messagesStored` in exact answers.
        uncounted: new messages of captures that no exact answer counted.

    """

    def __init__(self, chatbot: Chatbot, number: int) -> None:
        self.key = chatbot.key
        self.name = f"{chatbot.name}-{number}"
        self.turns = 0
        self.exact = 0
        self.uncounted = 0

    @property
    def messages(self) -> int:
        return PAIR * self.turns

    def capture(self, turn: int) -> dict[str, Any]:
        """Return a turn as chatbots post it: with the turn before, which is known already."""
        messages = [
            {"id": f"{number}-{role}", "role": role, "content": f"{role} {number}: great, thanks"}
            for number in range(max(0, turn - 1), turn + 1)
            for role in ("user", "assistant")
        ]
        return {"conversationId": self.name, "messages": messages}
