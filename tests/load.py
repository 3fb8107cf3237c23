"""Clients that post turn by turn, whatever happens, and a count of what became of it."""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self
from uuid import UUID

import aiohttp

from gateway.decode import conversation_id_of
from schemas import topics
from tests.posting import Posting
from tests.stack import Stack

NO_ANSWER = 0
PAIR = 2
"""Messages of a capture: a question and an answer."""
REPEAT_EVERY = 8
"""Every so many captures one is posted again, and must store nothing."""


class Answer(NamedTuple):
    """What one request led to; `status` 0 where its connection broke."""

    at: float
    seconds: float
    status: int
    is_exact: bool
    partition: int


class Capture(NamedTuple):
    """A capture to be posted, and what an exact answer to it may say."""

    body: dict[str, object]
    partition: int
    may_store: set[int]


class Load(Posting):
    """Clients, each with a conversation of its own; they post for as long as the block lasts.

    A capture is posted, unchanged, until it is answered with 200. At the end of the block each
    client finishes its last one. Times are those of time.monotonic.

    Args:
        stack: where to post, with its demo chatbot's key.
        name: begins the names of the conversations.
        clients: how many.
        pause_seconds: of each between two captures.
        partitions: of captures.

    """

    def __init__(
        self,
        stack: Stack,
        name: str,
        *,
        clients: int = 32,
        pause_seconds: float = 0.1,
        partitions: int = 8,
    ) -> None:
        super().__init__()
        self._stack = stack
        self._all_partitions = partitions
        self._name = name
        self._pause_seconds = pause_seconds
        self._clients = clients
        self._answered = asyncio.Event()
        self.waiting = 0
        self.answers: list[Answer] = []
        self.wrong: list[str] = []
        self.taken = dict.fromkeys(range(clients), 0)

    async def __aenter__(self) -> Self:
        state = self._stack.state
        self._url = f"{state['gateway_url']}/api/v1/capture"
        self._connect({"Authorization": f"Bearer {state['api_key']}"})
        self.partitions = len({self._partition_of(client) for client in range(self._clients)})
        self._begin(map(self._talk, range(self._clients)))
        return self

    @property
    def messages(self) -> int:
        """How many messages were answered with 200."""
        return PAIR * sum(self.taken.values())

    def between(self, start: float, end: float = math.inf) -> list[Answer]:
        """Return the answers to requests that were sent in this time."""
        return [answer for answer in self.answers if start <= answer.at < end]

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until the condition holds; it is looked at after each answer."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds} s") from None

    async def exact_everywhere(self, since: float, seconds: float) -> None:
        """Wait until each partition has answered a request, sent after `since`, exactly."""
        seen: set[int] = set()
        looked_at = len(self.answers)

        def condition() -> bool:
            nonlocal looked_at
            seen.update(
                answer.partition
                for answer in itertools.islice(self.answers, looked_at, None)
                if answer.is_exact and answer.at >= since
            )
            looked_at = len(self.answers)
            return len(seen) == self.partitions

        await self.until(condition, seconds, "exact answers of every partition")

    async def count(self, seconds: float) -> None:
        """Assert that all that was answered with 200 is in ClickHouse exactly once.

        To be called after the block. Each conversation must get there within the time.
        """
        assert self.wrong == []
        expected = [
            {"name": self._conversation(client), "rows": PAIR * taken, "ids": PAIR * taken}
            for client, taken in self.taken.items()
            if taken
        ]
        expected.sort(key=lambda row: str(row["name"]))
        found = await asyncio.to_thread(
            self._stack.wait_sql,
            "SELECT external_conversation_id AS name, count() AS rows, "
            "uniqExact(message_id) AS ids FROM openbat.messages "
            f"WHERE startsWith(external_conversation_id, '{self._name}-') "
            "GROUP BY name ORDER BY name",
            expected,
            seconds,
        )
        assert found == expected
        counted = await asyncio.to_thread(
            self._stack.wait_sql,
            "SELECT sum(message_count) AS messages FROM openbat.conversations "
            f"WHERE startsWith(external_conversation_id, '{self._name}-')",
            [{"messages": self.messages}],
            seconds,
        )
        assert counted == [{"messages": self.messages}]

    def _conversation(self, client: int) -> str:
        return f"{self._name}-{client}"

    def _partition_of(self, client: int) -> int:
        chatbot_id = UUID(self._stack.state["chatbot_id"])
        conversation_id = conversation_id_of(chatbot_id, self._conversation(client)).bytes
        return topics.partition_of(conversation_id, self._all_partitions)

    async def _talk(self, client: int) -> None:
        partition = self._partition_of(client)
        for turn in itertools.count():
            body: dict[str, object] = {
                "conversationId": self._conversation(client),
                "messages": [
                    {"id": f"{turn}-q", "role": "user", "content": f"question {turn}"},
                    {"id": f"{turn}-a", "role": "assistant", "content": f"answer {turn}"},
                ],
            }
            await self._post(Capture(body, partition, {PAIR}))
            self.taken[client] += 1
            if turn % REPEAT_EVERY == REPEAT_EVERY - 1:
                await self._post(Capture(body, partition, {0}))
            if await self._is_stopped_within(self._pause_seconds):
                return

    async def _post(self, capture: Capture) -> None:
        may_store = capture.may_store
        while True:
            at = time.monotonic()
            self.waiting += 1
            try:
                async with self._http.post(self._url, json=capture.body) as response:
                    content = await response.json()
                    status = response.status
                    retry_seconds = float(response.headers.get("Retry-After", "1"))
            except (aiohttp.ClientError, TimeoutError):
                content, status, retry_seconds = {}, NO_ANSWER, 0.1
            finally:
                self.waiting -= 1
            is_exact = status == 200 and not content["warnings"]
            seconds = time.monotonic() - at
            self.answers.append(Answer(at, seconds, status, is_exact, capture.partition))
            self._answered.set()
            if is_exact and content["messagesStored"] not in may_store:
                self.wrong.append(f"{capture.body}: {content}, expected one of {may_store}")
            if status == 200:
                return
            if status not in {503, NO_ANSWER}:
                self.wrong.append(f"{status}: {content}")
            # It may have been stored: a repeat then counts nothing.
            may_store = may_store | {0}
            await asyncio.sleep(retry_seconds)


def quantile(answers: Iterable[Answer], share: float) -> float:
    """Return the latency in milliseconds that this share of the answers kept within."""
    ordered = sorted(answer.seconds for answer in answers)
    return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]
