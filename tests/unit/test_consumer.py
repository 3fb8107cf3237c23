"""Faust's consumer fetches from a partition only once it was sought, and is not taken back then."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import faust.types
import pytest
from faust.transport.drivers.aiokafka import Consumer

from streams.consumer import MANY_RECORDS, RewindingConsumer, more_wait
from tests.unit.fakes import settled

TP = faust.types.TP("captures", 0)
OTHER = faust.types.TP("captures", 1)
COLLECT_SECONDS = 0.05
FETCH_BYTES = 1_000


class Group:
    """What Kafka knows, and what Faust's consumer did."""

    def __init__(self) -> None:
        self.committed = {TP: 5}
        self.fetching: list[Any] = []
        self.seeks = 0
        self.answers = asyncio.Event()
        self.answers.set()


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    made = Group()

    async def perform_seek(self: Any) -> None:
        made.seeks += 1
        await self.seek_to_committed()

    async def seek_to_committed(_self: Any) -> dict[Any, int]:
        committed = dict(made.committed)
        await made.answers.wait()
        return committed

    monkeypatch.setattr(Consumer, "__init__", lambda _self: None)
    monkeypatch.setattr(Consumer, "perform_seek", perform_seek)
    monkeypatch.setattr(Consumer, "seek_to_committed", seek_to_committed)
    monkeypatch.setattr(Consumer, "resume_partitions", lambda _self, tps: made.fetching.extend(tps))
    monkeypatch.setattr(Consumer, "_is_changelog_tp", lambda _self, _tp: False)
    return made


@pytest.fixture
def sought() -> list[Any]:
    return []


@pytest.fixture
def consumer(group: Group, sought: list[Any]) -> RewindingConsumer:
    made = RewindingConsumer()
    made.app = SimpleNamespace(
        on_seek=[sought.append],
        collect_seconds=COLLECT_SECONDS,
        conf=SimpleNamespace(consumer_max_fetch_size=FETCH_BYTES),
    )
    assert group.fetching == []
    return made


async def test_a_partition_is_fetched_from_once_it_was_sought(
    consumer: RewindingConsumer, group: Group, sought: list[Any]
) -> None:
    consumer.resume_partitions({TP})
    assert group.fetching == []
    await consumer.perform_seek()
    assert group.fetching == [TP]
    assert sought == [{TP: 5}]


async def test_a_seek_while_no_partition_is_held_back_takes_none_back(
    consumer: RewindingConsumer, group: Group, sought: list[Any]
) -> None:
    consumer.resume_partitions({TP})
    await consumer.perform_seek()
    await consumer.perform_seek()
    assert group.seeks == 1
    assert len(sought) == 1


async def test_of_two_seeks_at_once_the_later_one_changes_nothing(
    consumer: RewindingConsumer, group: Group, sought: list[Any]
) -> None:
    consumer.resume_partitions({TP})
    group.answers.clear()
    seeks = [asyncio.create_task(consumer.perform_seek()) for _ in range(2)]
    await settled()
    group.answers.set()
    await asyncio.gather(*seeks)
    assert group.fetching == [TP]
    assert sought == [{TP: 5}]


async def test_a_partition_that_came_during_a_seek_is_held_back_until_the_next(
    consumer: RewindingConsumer, group: Group
) -> None:
    consumer.resume_partitions({TP})
    group.answers.clear()
    seeking = asyncio.create_task(consumer.perform_seek())
    await settled()
    group.committed[OTHER] = 7
    consumer.resume_partitions({OTHER})
    group.answers.set()
    await seeking
    assert group.fetching == [TP]
    await consumer.perform_seek()
    assert group.fetching == [TP, OTHER]


async def test_a_partition_is_held_from_the_moment_it_is_assigned(
    consumer: RewindingConsumer, group: Group
) -> None:
    """Faust's own assignment, which recovers the tables; nothing is fetched before or meanwhile."""
    active: list[set[Any]] = []

    async def recover(_assigned: set[Any], _generation_id: int) -> None:
        active.append(set(consumer._active_partitions))

    consumer.app = SimpleNamespace(
        _start_span_from_rebalancing=lambda _name: nullcontext(),
        on_rebalance_return=lambda: None,
    )
    consumer.diag = SimpleNamespace(set_flag=lambda _: None, unset_flag=lambda _: None)
    consumer._active_partitions, consumer._paused_partitions = {OTHER}, set()
    consumer._on_partitions_assigned = recover
    await consumer.on_partitions_assigned({TP, OTHER})
    assert active == [set()]
    consumer.resume_partitions({TP, OTHER})
    assert group.fetching == []


def records(count: int, size: int) -> list[Any]:
    return [SimpleNamespace(value=bytes(size))] * count


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, False),
        ({TP: records(MANY_RECORDS - 2, 1), OTHER: records(1, 1)}, False),
        ({TP: records(MANY_RECORDS - 1, 1), OTHER: records(1, 1)}, True),
        ({TP: records(1, FETCH_BYTES // 2 - 1), OTHER: records(1, FETCH_BYTES // 2 - 1)}, False),
        ({TP: records(1, 1), OTHER: records(2, FETCH_BYTES // 4)}, True),
        ({TP: [SimpleNamespace(value=None)]}, False),
    ],
)
def test_more_wait_where_a_fetch_was_full(found: dict[Any, list[Any]], expected: bool) -> None:
    assert more_wait(found, FETCH_BYTES) == expected


@pytest.mark.parametrize(
    ("count", "collect_seconds", "slept"),
    [(1, COLLECT_SECONDS, [COLLECT_SECONDS] * 2), (MANY_RECORDS, COLLECT_SECONDS, []), (1, 0, [])],
)
async def test_records_collect_after_a_fetch_of_few(
    consumer: RewindingConsumer,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    collect_seconds: float,
    slept: list[float],
) -> None:
    seconds: list[float] = []

    async def sleep(duration: float) -> None:
        seconds.append(duration)

    async def getmany(_self: Any, _active: Any, _timeout: float) -> dict[Any, list[Any]]:
        return {TP: records(count, 1)}

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(Consumer, "_getmany", getmany)
    consumer.app.collect_seconds = collect_seconds
    for _ in range(3):
        assert await consumer._getmany({TP}, 1.0) == {TP: records(count, 1)}
    assert seconds == slept
