"""Chatbots that post turn by turn, retry unchanged until they get a 200, and write it all down."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import aiohttp

from openbat.importer import cut
from schemas import topics

PENDING = "Deduplication pending: messagesStored is provisional"
CLIENTS = 40
REQUEST_SECONDS = 8.0
PAUSE_SECONDS = 0.25
"""Between the captures of one client, on average."""
REPEATED = 0.1
"""The share of captures that a client posts once more although they were answered."""

Mode = Literal["ids", "key", "bare"]
"""Messages have ids; they have none, but requests have an Idempotency-Key; neither."""


@dataclass
class Answer:
    """A 200, and when it was asked for and came, in microseconds since the epoch."""

    asked_at: int
    answered_at: int
    body: dict[str, Any]

    @property
    def exact(self) -> bool:
        return PENDING not in self.body["warnings"]


@dataclass
class Posted:
    """One capture: what was sent, how often, and the answers to it, in order."""

    mode: Mode
    external_id: str
    turn: str
    messages: list[dict[str, Any]]
    attempts: int = 0
    answers: list[Answer] = field(default_factory=list)


@dataclass
class Journal:
    """What all clients sent and were told."""

    posted: list[Posted] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    """Attempts without a 200, by what came instead."""
    longest_silence: float = 0.0
    """The longest time in which no client at all got a 200, in seconds."""
    wrong: list[str] = field(default_factory=list)
    """What no gateway may ever answer."""


class Clients:
    """Many clients at once, each with a conversation at a time.

    Attributes:
        exact_at: by partition, when its last exact answer was asked for, of time.monotonic().
        newest: by partition, a conversation's UUID and a message's id that were answered last.

    """

    def __init__(
        self,
        url: str,
        key: str,
        partitions: int,
        conversations: list[dict[str, Any]],
        seed: int,
    ) -> None:
        self.journal = Journal()
        self.exact_at: dict[int, float] = dict.fromkeys(range(partitions), 0.0)
        self.newest: dict[int, tuple[str, str]] = {}
        self._url = f"{url}/api/v1/capture"
        self._key = key
        self._dice = random.Random(seed)  # noqa: S311
        self._conversations = self._renamed(conversations)
        self._stopping = asyncio.Event()
        self._last_answer = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            connector=aiohttp.TCPConnector(limit=CLIENTS),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        self._tasks = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let every client bring its capture to its 200, and no more."""
        self._stopping.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self._http.close()

    def failed(self) -> BaseException | None:
        """Return what ended a client that was not to end."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    def _renamed(self, conversations: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the conversations again and again, each time as new ones."""
        run = uuid.uuid4().hex[:8]
        number = 0
        while True:
            for conversation in conversations:
                number += 1
                yield {**conversation, "conversationId": f"crash-{run}-{number}"}

    async def _client(self) -> None:
        while not self._stopping.is_set():
            conversation = next(self._conversations)
            mode: Mode = self._dice.choices(["ids", "key", "bare"], [7, 2, 1])[0]  # type: ignore[assignment]
            for number, capture in enumerate(cut(conversation, turn_by_turn=True)):
                if self._stopping.is_set():
                    return
                await self._post(_in_mode(capture, mode, number), mode)

    async def _post(self, capture: dict[str, Any], mode: Mode) -> None:
        turn = capture["session"]["device"]
        posted = Posted(mode, capture["conversationId"], turn, capture["messages"])
        self.journal.posted.append(posted)
        body = json.dumps(capture).encode()
        headers = {"Prefer": self._dice.choice(["wait=10", "wait=2", "", "", "", "respond-async"])}
        if mode == "key":
            headers["Idempotency-Key"] = uuid.uuid4().hex
        wanted = 2 if mode != "bare" and self._dice.random() < REPEATED else 1
        while len(posted.answers) < wanted:
            await asyncio.sleep(PAUSE_SECONDS * 2 * self._dice.random())
            posted.attempts += 1
            await self._attempt(posted, body, headers)
            if mode == "bare":
                return

    async def _attempt(self, posted: Posted, body: bytes, headers: dict[str, str]) -> None:
        asked, asked_at = time.monotonic(), time.time_ns() // 1000
        try:
            async with self._http.post(self._url, data=body, headers=headers) as got:
                content = await got.read()
                status, retry_after = got.status, got.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError) as error:
            self._count(type(error).__name__)
            return
        if status == 200:
            now = time.monotonic()
            silence = now - self._last_answer
            self.journal.longest_silence = max(self.journal.longest_silence, silence)
            self._last_answer = now
            answer = Answer(asked_at, time.time_ns() // 1000, json.loads(content))
            posted.answers.append(answer)
            conversation_id = answer.body["conversationId"]
            partition = topics.partition_of(uuid.UUID(conversation_id).bytes, len(self.exact_at))
            if posted.mode == "ids":
                self.newest[partition] = conversation_id, posted.messages[-1]["id"]
            if answer.exact:
                self.exact_at[partition] = max(self.exact_at[partition], asked)
            return
        self._count(str(status))
        if status != 503 or retry_after is None:
            self.journal.wrong.append(f"{status}, Retry-After {retry_after}: {content[:200]!r}")

    def _count(self, what: str) -> None:
        self.journal.refused[what] = self.journal.refused.get(what, 0) + 1


def _in_mode(capture: dict[str, Any], mode: Mode, number: int) -> dict[str, Any]:
    """Return the capture with or without ids, and with a field that changes turn by turn."""
    messages = capture["messages"]
    if mode != "ids":
        messages = [{k: v for k, v in message.items() if k != "id"} for message in messages]
    return {**capture, "messages": messages, "session": {"device": f"turn {number}"}}
