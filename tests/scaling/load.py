"""A bounded rate of captures through however many gateways there are, and what must come of it."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

import aiohttp

from gateway.capture import PENDING
from tests.posting import Posting
from tests.scaling.conversation import PAIR, Chatbot, Conversation

CLIENTS = 12
CONVERSATIONS = 3
"""Of each client."""
REPEAT_EVERY = 8
REFUSED_SECONDS, BROKEN_SECONDS = 0.05, 0.2
LOOK_SECONDS = 0.1
AGAIN = {"Prefer": "wait=30"}


class Answer(NamedTuple):
    """One answer. Times are those of time.monotonic."""

    at: float
    seconds: float
    url: str
    status: int
    is_exact: bool


class Load(Posting):
    """Clients that post new turns, and some again, for as long as the block lasts.

    A capture is sent, unchanged, to one gateway after the other until it is taken. What is refused
    before it was sent was not stored; of a broken connection nobody knows.

    Args:
        gateways: where clients post; may change at any time.
        chatbots: whose conversations they are.
        per_second: captures of all clients together, at most.

    Attributes:
        per_second: as given.
        answers: all of them.
        refused, broken: connections that were not taken, and that ended without an answer.
        wrong: what must not be, in words.

    """

    def __init__(self, gateways: list[str], chatbots: Sequence[Chatbot], per_second: float) -> None:
        super().__init__()
        self._gateways = gateways
        self._turn = itertools.count()
        self.per_second = per_second
        self._pause_seconds = CLIENTS / per_second
        numbers = itertools.count()
        self._conversations = [
            [
                Conversation(chatbots[client % len(chatbots)], next(numbers))
                for _ in range(CONVERSATIONS)
            ]
            for client in range(CLIENTS)
        ]
        self.answers: list[Answer] = []
        self.refused = 0
        self.broken = 0
        self.wrong: list[str] = []

    async def __aenter__(self) -> Self:
        self._connect()
        self._begin(self._talk(number, own) for number, own in enumerate(self._conversations))
        return self

    @property
    def conversations(self) -> list[Conversation]:
        return [found for own in self._conversations for found in own]

    @property
    def messages(self) -> int:
        """How many distinct messages were answered with 200."""
        return sum(found.messages for found in self.conversations)

    def since(self, start: float) -> list[Answer]:
        return [answer for answer in self.answers if answer.at >= start]

    async def taken_by(self, gateways: Sequence[str], seconds: float) -> None:
        """Return when each of these gateways has taken a capture, and no other one since.

        Raises:
            AssertionError: not within the time.

        """
        start = time.monotonic()
        while True:
            taken = {answer.url for answer in self.since(start) if answer.status == 200}
            if taken == set(gateways):
                return
            assert time.monotonic() - start < seconds, (taken, gateways)
            await asyncio.sleep(LOOK_SECONDS)

    async def exact_everywhere(self) -> None:
        """Have every conversation's newest capture answered exactly, with nothing new in it.

        To be called within the block, after `stop`. What is answered otherwise is in `wrong`.
        """
        for found in self.conversations:
            if found.turns:
                is_sure = await self._post(found, found.turns - 1, {0}, AGAIN)
                if not is_sure:
                    self.wrong.append(f"{found.name}: no exact answer at the end")

    async def stop(self) -> None:
        """Have each client finish what it is at; none begins anything more."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _talk(self, client: int, own: list[Conversation]) -> None:
        await self._is_stopped_within(self._pause_seconds * client / CLIENTS)
        due = time.monotonic()
        for number, conversation in enumerate(itertools.cycle(own), start=1):
            before = conversation.exact
            is_sure = await self._post(conversation, conversation.turns, {PAIR})
            conversation.turns += 1
            if not is_sure:
                conversation.exact = before
                conversation.uncounted += PAIR
            due += self._pause_seconds
            if await self._is_stopped_within(due - time.monotonic()):
                return
            if number % REPEAT_EVERY == 0:
                await self._post(conversation, conversation.turns - 1, {0})
                due += self._pause_seconds
                if await self._is_stopped_within(due - time.monotonic()):
                    return
            # What was missed while no answer came is not made up for: the rate is bounded.
            due = max(due, time.monotonic() - self._pause_seconds)

    async def _post(
        self,
        conversation: Conversation,
        turn: int,
        may_store: set[int],
        headers: dict[str, str] | None = None,
    ) -> bool:
        """Post until a gateway takes it; return whether its answer counts it exactly."""
        body = conversation.capture(turn)
        headers = {"Authorization": f"Bearer {conversation.key}", **(headers or {})}
        is_sure = True
        while True:
            url = self._gateways[next(self._turn) % len(self._gateways)]
            at = time.monotonic()
            try:
                async with self._http.post(
                    f"{url}/api/v1/capture", json=body, headers=headers
                ) as response:
                    content = await response.json()
            except aiohttp.ClientConnectorError:
                self.refused += 1
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            except (aiohttp.ClientError, TimeoutError):
                self.broken += 1
                is_sure = False
                await asyncio.sleep(BROKEN_SECONDS)
                continue
            status = response.status
            is_exact = status == 200 and not content["warnings"]
            self.answers.append(Answer(at, time.monotonic() - at, url, status, is_exact))
            if status != 200:
                self.wrong.append(f"{status} from {url}: {content}")
                is_sure = False
                await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
                continue
            if content["warnings"] not in ([], [PENDING]):
                self.wrong.append(f"warnings: {content}")
            if is_exact:
                conversation.exact += content["messagesStored"]
                if content["messagesStored"] not in may_store | (set() if is_sure else {0}):
                    self.wrong.append(f"{conversation.name} {turn}: {content}, not {may_store}")
            return is_exact and is_sure
