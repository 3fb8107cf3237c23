"""How far a worker is: the arithmetic, and what is read of a real app with a fake consumer."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from schemas import topics
from streams import progress as progress_module
from streams.app import add_agent
from streams.progress import PartitionLag, Progress, StoreSize, lags, missing
from tests.unit.tables import open_table

CAPTURES = TP("captures", 0)
OTHER = TP("captures", 1)


class Message(NamedTuple):
    """The part of a Faust message that is used."""

    tp: TP
    timestamp: float


class Consumer:
    """The part of Faust's consumer that is used."""

    def __init__(self) -> None:
        self._committed_offset: dict[TP, int | None] = {CAPTURES: 5, OTHER: None}
        self.unacked: set[Message] = set()
        self.asked = {CAPTURES, OTHER}
        self.calls = 0
        self.ends: asyncio.Future[Mapping[TP, int]] = asyncio.get_running_loop().create_future()

    async def highwaters(self, *tps: TP) -> Mapping[TP, int]:
        assert set(tps) == self.asked
        self.calls += 1
        return await asyncio.shield(self.ends)


@pytest.mark.parametrize(
    ("committed", "end", "unacked", "expected"),
    [
        (5, 5, [], (0, 0, 0.0)),
        (5, 9, [], (4, 0, None)),
        (5, 9, [98.0, 90.0, 99.0], (4, 3, 10.0)),
        (5, None, [], (None, 0, None)),
        (5, None, [98.0], (None, 1, 2.0)),
        (None, 3, [], (3, 0, None)),
        (None, 0, [], (0, 0, 0.0)),
        # Committed after Kafka was asked; and a producer whose clock is ahead.
        (7, 5, [101.0], (0, 1, 0.0)),
    ],
)
def test_the_lag_of_a_partition(
    committed: int | None,
    end: int | None,
    unacked: list[float],
    expected: tuple[int | None, int, float | None],
) -> None:
    ends = {} if end is None else {CAPTURES: end}
    found = lags({CAPTURES: committed}, ends, [(CAPTURES, at) for at in unacked], 100.0)
    assert found == [PartitionLag("captures", 0, *expected)]


def test_partitions_are_apart() -> None:
    found = lags({CAPTURES: 1, OTHER: 2}, {CAPTURES: 3, OTHER: 3}, [(OTHER, 40.0)], 100.0)
    assert found == [
        PartitionLag("captures", 0, 2, 0, None),
        PartitionLag("captures", 1, 1, 1, 60.0),
    ]


@pytest.mark.parametrize(
    ("end", "reached", "expected"),
    [(-1, -1, 0), (9, 9, 0), (9, 4, 5), (9, -1, 10), (9, None, 10), (None, None, 0), (4, 9, 0)],
)
def test_what_a_table_lacks(end: int | None, reached: int | None, expected: int) -> None:
    assert missing({CAPTURES: end}, {CAPTURES: reached}) == expected


@pytest.fixture
async def looking(tmp_path: Path) -> tuple[Progress, Any, Consumer]:
    table = open_table(tmp_path, recovered=6)
    consumer = Consumer()
    table.app.consumer = consumer
    return Progress(table.app), table, consumer


async def test_a_worker_before_its_consumer_is_there(tmp_path: Path) -> None:
    app = open_table(tmp_path).app
    seen = await Progress(app).look()
    assert not seen.ready
    assert seen.lags == []
    assert app._consumer is None


async def test_a_look_at_a_worker(looking: tuple[Progress, Any, Consumer]) -> None:
    progress, table, consumer = looking
    consumer.ends.set_result({CAPTURES: 8, OTHER: 0})
    consumer.unacked = {Message(CAPTURES, time.time() - 3)}
    recovery = table.app.tables.recovery
    recovery.active_offsets[TP(table.changelog_topic_name, 0)] = 4
    recovery.active_offsets[TP(table.changelog_topic_name, 1)] = 6
    recovery.standby_highwaters[TP(table.changelog_topic_name, 1)] = 2
    table.commit(0, {b"key": b"value"}, [(7, 1)])
    seen = await progress.look()
    one, other = seen.lags
    assert (one.records, one.in_flight) == (3, 1)
    assert one.seconds == pytest.approx(3, abs=1)
    assert other == PartitionLag("captures", 1, 0, 0, 0.0)
    assert (seen.recovering, seen.standby_recovering) == (2, 3)
    # The entry, and the offset that it reaches.
    assert seen.stores == [StoreSize(table.name, 0, 2, 0)]


async def test_kafka_that_does_not_answer_is_asked_once_at_a_time(
    looking: tuple[Progress, Any, Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "ENDS_SECONDS", 0.01)
    progress, _, consumer = looking
    consumer.unacked = {Message(OTHER, time.time() - 3)}
    for _ in range(2):
        seen = await progress.look()
        assert not seen.kafka_answers
        one, other = seen.lags
        assert (one.records, one.seconds) == (None, None)
        assert other.records is None
        assert other.seconds == pytest.approx(3, abs=1)
    assert consumer.calls == 1
    consumer.ends.set_result({CAPTURES: 5, OTHER: 1})
    seen = await progress.look()
    assert [lag.records for lag in seen.lags] == [0, 1]
    assert seen.kafka_answers


async def test_an_error_of_kafka_leaves_the_rest(looking: tuple[Progress, Any, Consumer]) -> None:
    progress, _, consumer = looking
    consumer.ends.set_exception(KafkaConnectionError("no broker"))
    seen = await progress.look()
    assert [lag.records for lag in seen.lags] == [None, None]
    assert not seen.kafka_answers


async def test_a_worker_without_a_partition_asks_for_one_of_another_worker(
    looking: tuple[Progress, Any, Consumer],
) -> None:
    progress, table, consumer = looking
    consumer.asked = {CAPTURES}
    consumer._committed_offset = {}
    add_agent(table.app, topics.CAPTURES, _unused)
    consumer.ends.set_result({CAPTURES: 8})
    seen = await progress.look()
    assert (seen.lags, seen.kafka_answers, consumer.calls) == ([], True, 1)


async def _unused(*_: object) -> None:
    raise AssertionError


async def test_a_worker_without_a_partition_is_ready(
    looking: tuple[Progress, Any, Consumer],
) -> None:
    progress, table, consumer = looking
    consumer.ends.set_result({})
    assert not (await progress.look()).ready
    table.app.unassigned = True
    assert (await progress.look()).ready
