"""What the admin API needs of the registry; it is handed in."""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from gateway.errors import RefusedError
from schemas.chatbots import Chatbot


def unknown_chatbot() -> RefusedError:
    return RefusedError(404, "chatbot_not_found", "There is no chatbot with this id.")


class Written(Struct, frozen=True):
    """What was written to the registry.

    Attributes:
        chatbot: as it is from now on.
        in_force: whether this gateway goes by it already; the others do within a second.

    """

    chatbot: Chatbot
    in_force: bool


class Chatbots(Protocol):
    """The registry. Reads are this gateway's own; writes see all that was ever written.

    A write returns when it is durable and this gateway goes by it, or when that takes too long.
    It raises RefusedError: 404 there is no such chatbot, 400 no chatbot can be called so, 409 the
    name is taken or there are too many, 503 the log is away or did not confirm the write in time.
    """

    def every(self) -> list[Chatbot]:
        """Return all of them, by name."""
        ...

    def get(self, chatbot_id: UUID) -> Chatbot:
        """Return one. Raises RefusedError, 404, where there is none."""
        ...

    async def create(self, name: str) -> tuple[Written, str]:
        """Make one; return it and its key."""
        ...

    async def rotate_key(self, chatbot_id: UUID) -> tuple[Written, str]:
        """Give one a new key, and return that; the old one stops."""
        ...

    async def change(self, chatbot_id: UUID, change: Callable[[Chatbot], Chatbot]) -> Written:
        """Change name or settings of one; `change` may be called again."""
        ...

    async def archive(self, chatbot_id: UUID) -> Written:
        """Let one take no more captures."""
        ...
