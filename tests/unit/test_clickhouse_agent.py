"""The ClickHouse agent: when a batch is written, and what is acked after it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from schemas import topics
from schemas.codec import UndecodableError
from schemas.dead_letters import DeadLetter, Reason, Source
from streams import clickhouse
from streams.clickhouse import ClickHouseAgent, Rejected
from streams.dead_letters import DeadLetters
from streams.lanes import Received
from tests.unit.fakes import LONG_SECONDS, FakeProducer, settled

UNDECODABLE = b"?"
WITH_AN_UNDECODABLE_PART = b"??"


def rejected(reason: Reason, offset: int, index: int, value: bytes) -> Rejected:
    return DeadLetter(reason, "out of range", Source(topics.ANALYSES, 2, offset, index)), value


class FakeBatch:
    """Holds the records themselves: a record has as many rows as bytes."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    @property
    def rows(self) -> int:
        return sum(map(len, self.records))

    def add(self, value: bytes, partition: int, offset: int) -> list[Rejected]:
        if value == UNDECODABLE:
            raise UndecodableError(f"record {offset} of {partition}")
        self.records.append(value)
        if value == WITH_AN_UNDECODABLE_PART:
            return [rejected("undecodable_output", offset, 3, b"part")]
        return []


class FakeSink:
    """Writes a batch when the test says so."""

    def __init__(self) -> None:
        self.writing: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self.written = asyncio.Semaphore(0)
        self.rejected: list[Rejected] = []

    async def write(self, batch: FakeBatch) -> list[Rejected]:
        self.writing.put_nowait(batch.records)
        await self.written.acquire()
        return self.rejected


class Worker:
    """An agent that runs, with all that it needs."""

    def __init__(self) -> None:
        self.sink = FakeSink()
        self.producer = FakeProducer()
        self.counted: list[str] = []
        dead_letters = DeadLetters(self.producer, self.counted.append)
        self.agent = ClickHouseAgent(topics.ANALYSES, FakeBatch, self.sink, dead_letters)
        self.acked: list[int] = []

    async def take(self, offset: int, value: bytes) -> None:
        await self.agent.process(2, Received(offset, value, lambda: self.acked.append(offset)))


@pytest.fixture
async def worker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    """Return a worker whose batches are written when they hold 10 rows, and not for their age."""
    monkeypatch.setattr(clickhouse, "MAX_BATCH_ROWS", 10)
    monkeypatch.setattr(clickhouse, "MAX_BATCH_AGE_SECONDS", LONG_SECONDS)
    made = Worker()
    running = asyncio.create_task(made.agent.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_batch_is_written_when_it_has_enough_rows(worker: Worker) -> None:
    await worker.take(0, b"12345")
    await worker.take(1, b"6789")
    await settled()
    assert worker.sink.writing.empty()
    await worker.take(2, b"0")
    assert await worker.sink.writing.get() == [b"12345", b"6789", b"0"]


async def test_a_batch_is_written_when_it_has_enough_bytes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clickhouse, "MAX_BATCH_ROWS", 1_000)
    monkeypatch.setattr(clickhouse, "MAX_BATCH_BYTES", 3)
    await worker.take(0, b"12")
    await settled()
    assert worker.sink.writing.empty()
    await worker.take(1, b"3")
    assert await worker.sink.writing.get() == [b"12", b"3"]


async def test_a_batch_is_written_when_it_is_old_enough(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clickhouse, "MAX_BATCH_AGE_SECONDS", 0.01)
    await worker.take(0, b"1")
    await worker.take(1, b"2")
    assert await worker.sink.writing.get() == [b"1", b"2"]


async def test_records_are_acked_in_order_and_only_after_the_write(worker: Worker) -> None:
    for offset in range(3):
        await worker.take(offset, b"1234")
    await worker.sink.writing.get()
    await settled()
    assert worker.acked == []
    worker.sink.written.release()
    await settled()
    assert worker.acked == [0, 1, 2]


async def test_a_batch_fills_while_the_one_before_it_is_written_and_then_blocks(
    worker: Worker,
) -> None:
    await worker.take(0, bytes(10))
    await worker.sink.writing.get()
    await worker.take(1, bytes(5))
    await worker.take(2, bytes(5))
    blocked = asyncio.create_task(worker.take(3, b"late"))
    await settled()
    assert not blocked.done()
    assert worker.sink.writing.empty()
    worker.sink.written.release()
    assert await worker.sink.writing.get() == [bytes(5), bytes(5)]
    await blocked
    assert worker.acked == [0]


async def test_a_rejected_row_is_a_dead_letter_before_anything_is_acked(worker: Worker) -> None:
    worker.sink.rejected = [rejected("rejected_row", 0, 4, b"a record")]
    await worker.take(0, bytes(10))
    worker.sink.written.release()
    letter = await worker.producer.sent.get()
    assert (letter.topic, letter.partition, letter.value) == (topics.DEAD_LETTERS, 2, b"a record")
    assert letter.headers == {
        "reason": "rejected_row",
        "detail": "out of range",
        "source-topic": topics.ANALYSES,
        "source-partition": "2",
        "source-offset": "0",
        "source-index": "4",
    }
    assert letter.entries == [(b"analyses/2/0/4", b"a record")]
    assert worker.counted == ["rejected_row"]
    await settled()
    assert worker.acked == []
    letter.acknowledge()
    await settled()
    assert worker.acked == [0]


async def test_an_undecodable_part_is_a_dead_letter_and_the_rest_of_its_record_is_written(
    worker: Worker,
) -> None:
    taking = asyncio.create_task(worker.take(7, WITH_AN_UNDECODABLE_PART))
    letter = await worker.producer.sent.get()
    assert (letter.topic, letter.partition, letter.value) == (topics.DEAD_LETTERS, 2, b"part")
    assert letter.headers["reason"] == "undecodable_output"
    assert letter.headers["source-index"] == "3"
    worker.sink.written.release()
    await settled()
    assert worker.acked == []
    letter.acknowledge()
    await taking
    await worker.take(8, bytes(10))
    assert await worker.sink.writing.get() == [WITH_AN_UNDECODABLE_PART, bytes(10)]
    await settled()
    assert worker.acked == [7, 8]


async def test_an_undecodable_record_is_a_dead_letter_and_its_neighbours_are_written(
    worker: Worker,
) -> None:
    worker.producer.acknowledging = True
    await worker.take(0, bytes(5))
    await worker.take(1, UNDECODABLE)
    await worker.take(2, bytes(5))
    assert await worker.sink.writing.get() == [bytes(5), bytes(5)]
    letter = await worker.producer.sent.get()
    assert letter.value == UNDECODABLE
    assert letter.headers["reason"] == "undecodable_output"
    assert letter.headers["source-topic"] == topics.ANALYSES
    assert letter.headers["source-offset"] == "1"
    assert letter.headers["source-index"] == "-1"
    worker.sink.written.release()
    await settled()
    assert worker.acked == [0, 1, 2]


async def test_an_undecodable_record_is_not_acked_before_its_dead_letter(worker: Worker) -> None:
    taking = asyncio.create_task(worker.take(0, UNDECODABLE))
    letter = await worker.producer.sent.get()
    await settled()
    assert not taking.done()
    assert worker.acked == []
    letter.acknowledge()
    await taking


async def test_the_agent_is_drained_when_all_is_acked(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.agent.drained()
    monkeypatch.setattr(clickhouse, "MAX_BATCH_AGE_SECONDS", 0.01)
    await worker.take(0, b"1")
    draining = asyncio.create_task(worker.agent.drained())
    await worker.sink.writing.get()
    await worker.take(1, b"2")
    worker.sink.written.release()
    await worker.sink.writing.get()
    await settled()
    assert not draining.done()
    worker.sink.written.release()
    await draining
    assert worker.acked == [0, 1]


async def test_the_agent_is_not_drained_while_a_dead_letter_is_on_its_way(worker: Worker) -> None:
    await worker.take(0, bytes(10))
    await worker.sink.writing.get()
    taking = asyncio.create_task(worker.take(1, UNDECODABLE))
    letter = await worker.producer.sent.get()
    worker.sink.written.release()
    await settled()
    draining = asyncio.create_task(worker.agent.drained())
    letter.acknowledge()
    await taking
    await settled()
    assert worker.acked == [0]
    assert not draining.done()
