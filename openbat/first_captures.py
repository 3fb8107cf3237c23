"""Writes into the registry which chatbots have had their first capture.

A gateway notes it when it answers the capture; what has gathered is written seconds later, in one
edit. No capture waits for that. Where the process ends before it, nothing is lost either: as long
as the registry shows no first capture, every capture is noted.
"""

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import structlog
from msgspec.structs import replace

from gateway.registry import Registry
from openbat.chatbots import entry_of
from openbat.connection import Connection
from openbat.kafka import Entries, edit_registry

log = structlog.get_logger()

GATHER_SECONDS = 3.0
"""From a note to its write, give or take a half: writers fence each other out, and gateways that
took captures of a new chatbot at the same time must not meet."""
LONGEST_WAIT_SECONDS = 300.0
"""Between two attempts, where the registry can't be written; give or take a half too."""
WRITE_SECONDS = 10.0
"""How long one write may take; changes by the admin API wait for it."""
WARN_SECONDS = 600.0
"""At most so often it is said that the registry can't be written."""
RESTS = 20
"""Times what a write took, before the next: it reads the whole registry, in the gateway's loop."""
MAX_AT_ONCE = 1_000
"""Chatbots of one write, so that no transaction comes near its time-out."""
CLOSE_SECONDS = 1.0
_CLOSE_ATTEMPTS = 5

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def entries_of(registry: Registry, noted: Mapping[str, int]) -> Entries:
    """Return the entries of those chatbots that the registry shows no first capture of.

    Args:
        registry: as it is now; what it does not hold gets no entry.
        noted: when captures were received, in microseconds since the epoch, by chatbots' ids.

    """
    entries: Entries = []
    for chatbot_id, received_at in noted.items():
        chatbot = registry.chatbot(UUID(chatbot_id).bytes)
        if chatbot is not None and chatbot.first_capture_at is None:
            at = _EPOCH + timedelta(microseconds=received_at)
            entries.append(entry_of(replace(chatbot, first_capture_at=at)))
    return entries


class FirstCaptures:
    """First captures that are not in the registry yet; memory for one note a chatbot.

    Args:
        connection: to Kafka.
        registry: this gateway's own, which follows the topic.
        writing: held by who writes the registry in this process.

    """

    def __init__(self, connection: Connection, registry: Registry, writing: asyncio.Lock) -> None:
        self._connection = connection
        self._registry = registry
        self._writing = writing
        self._noted: dict[str, int] = {}
        self._any = asyncio.Event()
        self._warned_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def noted(self) -> Mapping[str, int]:
        """When captures were received, in microseconds since the epoch, by chatbots' ids."""
        return self._noted

    def note(self, chatbot_id: str, received_at: int) -> None:
        """Note a capture of a chatbot whose first one the registry does not show."""
        self._noted.setdefault(chatbot_id, received_at)
        self._any.set()

    def start(self) -> None:
        """Begin to write what is noted."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End; a write under way is given up. Takes CLOSE_SECONDS at most."""
        # A client that is cancelled says goodbye to its brokers first, and they may be away.
        for _ in range(_CLOSE_ATTEMPTS):
            if self._task is None or self._task.done():
                return
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS / _CLOSE_ATTEMPTS)

    async def write(self) -> None:
        """Write what is noted, MAX_AT_ONCE at most, and forget it.

        Raises:
            KafkaError, UnreachableError, TimeoutError: it is not written, and not forgotten.

        """
        async with self._writing, asyncio.timeout(WRITE_SECONDS):
            self._forget_what_is_shown()
            batch = dict(islice(self._noted.items(), MAX_AT_ONCE))
            if batch:
                await edit_registry(self._connection, lambda registry: entries_of(registry, batch))
        for chatbot_id in batch:
            del self._noted[chatbot_id]
        if not self._noted:
            self._any.clear()

    def _forget_what_is_shown(self) -> None:
        """Forget what this gateway or another one has written, and chatbots that are gone."""
        self._noted = {
            chatbot_id: received_at
            for chatbot_id, received_at in self._noted.items()
            if (chatbot := self._registry.chatbot(UUID(chatbot_id).bytes)) is not None
            and chatbot.first_capture_at is None
        }

    async def _run(self) -> None:
        wait_seconds = GATHER_SECONDS
        while True:
            await self._any.wait()
            await asyncio.sleep(wait_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - spreads
            started = asyncio.get_running_loop().time()
            try:
                await self.write()
            except Exception as error:  # noqa: BLE001 - a shown state is not worth a gateway
                wait_seconds = min(wait_seconds * 2, LONGEST_WAIT_SECONDS)
                self._warn(error)
            else:
                took_seconds = asyncio.get_running_loop().time() - started
                wait_seconds = max(GATHER_SECONDS, RESTS * took_seconds)

    def _warn(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if self._warned_at is None or now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            log.warning(
                "first captures can't be written to the registry; trying again",
                chatbots=len(self._noted), error=repr(error),
            )  # fmt: skip
