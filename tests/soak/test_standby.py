"""A worker that is lost for good: another one takes over, from a standby copy or without one."""

import asyncio
import time
from pathlib import Path

import pytest

from openbat.connection import Connection
from openbat.kafka import migrate_topics
from schemas.records import Captured
from tests.brokers import brokers
from tests.captures import Log, open_log
from tests.report import Report
from tests.soak.changelog import CAPTURES, conversation, fill
from tests.soak.workers import Worker, worker

PARTITIONS = 4
ENTRIES = {True: 400_000, False: 4_000}
SESSION_SECONDS = 10
MAX_SECONDS = SESSION_SECONDS + 10
"""Until a takeover from a standby copy is done, whatever the table's size."""


class Asked:
    """Conversations of every partition, and what the contract says of their next captures."""

    def __init__(self, conversations: int) -> None:
        self._numbers = range(conversations)
        self._asked = dict.fromkeys(self._numbers, CAPTURES)

    def numbers(self, log: Log) -> list[int]:
        """Return a conversation of each partition."""
        found: dict[int, int] = {}
        for number in self._numbers:
            found.setdefault(log.partition_of(conversation(number, 0)), number)
        assert len(found) == log.partitions
        return list(found.values())

    def next(self, number: int) -> tuple[list[Captured], list[int | None]]:
        """Return captures for one record, and what must be stored of each."""
        at = self._asked[number]
        self._asked[number] += 1
        return (
            [conversation(number, 0), conversation(number, at - 1), conversation(number, at)],
            [0, 0, 2],
        )


async def all_answer(log: Log, asked: Asked) -> None:
    """Ask a conversation of every partition; return when all were answered, exactly."""
    expected = {}
    for number in asked.numbers(log):
        captures, stored = asked.next(number)
        expected[await log.write(captures)] = stored
    for name, stored in expected.items():
        assert await log.answer(name) == stored


async def take_over(connection: Connection, lost: Worker, asked: Asked) -> float:
    """Kill a worker for good; return how long until every partition is answered."""
    async with open_log(connection) as log:
        await all_answer(log, asked)
        lost.running.kill()
        begun = time.monotonic()
        await all_answer(log, asked)
        seconds = time.monotonic() - begun
        await all_answer(log, asked)
        return seconds


def seconds_to_take_over(directory: Path, entries: int, replicas: int) -> float:
    settings = {"OPENBAT_STANDBY_REPLICAS": str(replicas)}
    with brokers(directory / "kafka") as (broker,):
        asyncio.run(migrate_topics(broker.connection, PARTITIONS, replication_factor=1))
        conversations = asyncio.run(fill(broker.connection, entries))
        with (
            worker(broker.connection, directory / "lost", **settings) as lost,
            worker(broker.connection, directory / "other", **settings) as other,
        ):
            lost.wait_ready()
            other.wait_ready()
            if replicas:
                lost.wait_copied()
                other.wait_copied()
            return asyncio.run(take_over(broker.connection, lost, Asked(conversations)))


@pytest.mark.timeout(900)
def test_a_standby_takes_over_exactly_and_at_once(
    full: bool, report: Report, tmp_path: Path
) -> None:
    entries = ENTRIES[full]
    seconds = seconds_to_take_over(tmp_path / "with", entries, replicas=1)
    report.add("entries of the table that is taken over", entries)
    report.add(
        "takeover from a standby copy", seconds, "s",
        bound=f"at most {MAX_SECONDS} s", holds=seconds <= MAX_SECONDS,
    )  # fmt: skip
    if full:
        without = seconds_to_take_over(tmp_path / "without", entries, replicas=0)
        report.add("takeover without one", without, "s")
    assert seconds <= MAX_SECONDS
