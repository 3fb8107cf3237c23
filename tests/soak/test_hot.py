"""A conversation of 100,000 messages, and a chatbot that sends everything to one conversation."""

import asyncio
import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import pytest

from gateway.decode import conversation_id_of
from schemas.records import CapturesRecord, captures_codec, encode
from schemas.topics import partition_of
from tests.captures import captured
from tests.report import Report
from tests.stack import Stack
from tests.unit.test_conversations import REPLY_PARTITION, Worker

LONG = 100_000
PER_CAPTURE, PER_RECORD = 2, 25
MEASURED = 1_000
MAX_RATIO = 1.5
ROUNDS = 5

HOT_SECONDS = {True: 60.0, False: 4.0}
HOT_WRITERS, HOT_MESSAGES = 8, 100
MAX_NEIGHBOUR_SECONDS = 2.0
PARTITIONS = 8
CHATBOT = UUID(int=77)


def records(name: str, start: int, messages: int) -> list[bytes]:
    """Return records of captures that bring a conversation's messages from a number on."""
    frames = [
        encode(captured(CHATBOT, name, 10**15, (f"m{at}", f"m{at + 1}")))
        for at in range(start, start + messages, PER_CAPTURE)
    ]
    return [
        captures_codec.encode(CapturesRecord(1, REPLY_PARTITION, frames[at : at + PER_RECORD]))
        for at in range(0, len(frames), PER_RECORD)
    ]


class Costs:
    """A worker's real logic and store, without a broker; what a capture costs it."""

    def __init__(self, directory: Path) -> None:
        self.worker = Worker(directory, acknowledging=True)
        self.offset = 0

    async def take(self, values: list[bytes]) -> float:
        """Process records one by one; return the processor's seconds per capture."""
        begun = time.process_time()
        for value in values:
            await self.worker.take(self.offset, value)
            self.offset += 1
        await self.worker.failures.unless(self.worker.windows.drained())
        return (time.process_time() - begun) / (len(values) * PER_RECORD)


@pytest.mark.timeout(300)
async def test_a_capture_costs_no_more_at_the_end_of_a_long_conversation(
    report: Report, tmp_path: Path
) -> None:
    costs = Costs(tmp_path)
    await costs.take(records("warm", 0, 10 * MEASURED))
    await costs.take(records("long", 0, LONG))
    long, short = [], []
    for number in range(ROUNDS):
        long.append(await costs.take(records("long", LONG + number * MEASURED, MEASURED)))
        fresh = [
            record
            for at in range(MEASURED // PER_CAPTURE // PER_RECORD)
            for record in records(f"short-{number}-{at}", 0, PER_CAPTURE * PER_RECORD)
        ]
        short.append(await costs.take(fresh))
    await costs.worker.windows.close()
    ratio = min(long) / min(short)
    report.add(f"a capture's cost at {LONG:,} messages", min(long) * 1e6, "µs")
    report.add("a capture's cost in a conversation that just began", min(short) * 1e6, "µs")
    report.add("ratio", ratio, bound=f"at most {MAX_RATIO}", holds=ratio <= MAX_RATIO)
    assert ratio <= MAX_RATIO


class Client:
    """Posts captures to the demo chatbot, and insists on exact answers."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._url = f"{stack.gateway_url}/api/v1/capture"
        self._chatbot_id = UUID(stack.state["chatbot_id"])
        self._numbers = itertools.count()

    async def post(self, conversation: str, ids: Iterable[str], expected: int) -> float:
        """Post a capture; return how many seconds its answer took."""
        messages = [{"id": message_id, "role": "user", "content": "hi"} for message_id in ids]
        body = {"conversationId": conversation, "messages": messages}
        begun = time.monotonic()
        async with self._http.post(self._url, json=body) as answer:
            content = await answer.json()
        assert (answer.status, content.get("warnings")) == (200, []), content
        assert content["messagesStored"] == expected
        return time.monotonic() - begun

    def partition_of(self, conversation: str) -> int:
        return partition_of(conversation_id_of(self._chatbot_id, conversation).bytes, PARTITIONS)

    def neighbour(self, of: str) -> str:
        """Return a new conversation that lives in another partition."""
        while True:
            name = f"neighbour-{of}-{next(self._numbers)}"
            if self.partition_of(name) != self.partition_of(of):
                return name


@pytest.mark.timeout(300)
async def test_a_hot_conversation_does_not_block_its_neighbours(
    stack: Stack, full: bool, report: Report
) -> None:
    """A chatbot sends all it can to one conversation; others are asked all the while."""
    hot = f"hot-{uuid4()}"
    headers = {"Authorization": f"Bearer {stack.state['api_key']}", "Prefer": "wait=30"}
    waits: list[float] = []
    captures = 0
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(limit=0)
    ) as http:
        client = Client(stack, http)
        end = time.monotonic() + HOT_SECONDS[full]

        async def heat(writer: int) -> None:
            nonlocal captures
            for number in itertools.count():
                if time.monotonic() > end:
                    return
                ids = [f"{writer}-{number}-{at}" for at in range(HOT_MESSAGES)]
                await client.post(hot, ids, HOT_MESSAGES)
                captures += 1

        async def neighbours() -> None:
            while time.monotonic() < end:
                name = client.neighbour(hot)
                for ids, expected in (("ab", 2), ("abc", 1), ("a", 0)):
                    waits.append(await client.post(name, ids, expected))

        await asyncio.gather(neighbours(), *(heat(writer) for writer in range(HOT_WRITERS)))
    waits.sort()
    p99 = waits[len(waits) * 99 // 100]
    report.add("messages of the hot conversation", captures * HOT_MESSAGES)
    report.add("its rate", captures * HOT_MESSAGES / HOT_SECONDS[full], "messages/s")
    report.add("exact answers to its neighbours, median", waits[len(waits) // 2] * 1000, "ms")
    report.add(
        "exact answers to its neighbours, 99th percentile", p99 * 1000, "ms",
        bound=f"at most {MAX_NEIGHBOUR_SECONDS * 1000:.0f} ms", holds=p99 <= MAX_NEIGHBOUR_SECONDS,
    )  # fmt: skip
    assert p99 <= MAX_NEIGHBOUR_SECONDS
    query = (
        "SELECT message_count AS messages FROM openbat.conversations "
        f"WHERE external_conversation_id = '{hot}'"
    )
    expected = [{"messages": captures * HOT_MESSAGES}]
    assert await asyncio.to_thread(stack.wait_sql, query, expected) == expected
