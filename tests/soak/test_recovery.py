"""A worker that lost its disk rebuilds its table, and answers as if it had not."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbat.connection import Connection
from openbat.kafka import migrate_topics
from schemas import sizes
from tests.brokers import brokers
from tests.captures import open_log
from tests.report import Report
from tests.resident import resident_bytes
from tests.soak.changelog import CAPTURES, conversation, fill
from tests.soak.workers import Worker, worker

PARTITIONS = 4
ENTRIES = {True: 1_000_000, False: 20_000}
ASKED = 200
MAX_BYTES = 600 * sizes.MIB


@contextlib.contextmanager
def started(connection: Connection, directory: Path) -> Iterator[tuple[Worker, float]]:
    """Start a worker on a disk; yield it when it is ready, and how many seconds that took."""
    begun = time.monotonic()
    with worker(connection, directory) as starting:
        starting.wait_ready()
        yield starting, time.monotonic() - begun


async def ask(connection: Connection, conversations: int) -> None:
    """Repeat captures that the table knows, and some that it does not."""
    async with open_log(connection) as log:
        for number in range(0, conversations, max(1, conversations // ASKED)):
            known = conversation(number, number % CAPTURES)
            new = conversation(number, CAPTURES)
            assert await log.ask([known, new, new]) == [0, 2, 0]


@pytest.mark.timeout(1200)
def test_a_lost_table_is_rebuilt_from_the_changelog(
    full: bool, report: Report, tmp_path: Path
) -> None:
    entries = ENTRIES[full]
    with brokers(tmp_path / "kafka") as (broker,):
        connection = broker.connection
        asyncio.run(migrate_topics(connection, PARTITIONS, replication_factor=1))
        empty_seconds = 0.0
        if full:
            with started(connection, tmp_path / "empty") as (_, empty_seconds):
                pass
        conversations = asyncio.run(fill(connection, entries))
        with started(connection, tmp_path / "lost") as (recovered, seconds):
            resident = resident_bytes(recovered.running.pid)
            asyncio.run(ask(connection, conversations))
        # Its table is on its disk now: it goes on from there.
        with started(connection, tmp_path / "lost") as (_, again_seconds):
            pass
    report.add("entries of a changelog that is read from its beginning", entries)
    if full:
        per_million = (seconds - empty_seconds) * 1_000_000 / entries
        report.add("recovery, beyond a worker's start", per_million, "s per million entries")
        report.add("a worker's start with an empty changelog", empty_seconds, "s")
    report.add("a worker's start with its table on its disk", again_seconds, "s")
    report.add(
        "memory after the recovery", resident / sizes.MIB, "MiB",
        bound=f"at most {MAX_BYTES / sizes.MIB:.0f} MiB", holds=resident <= MAX_BYTES,
    )  # fmt: skip
    report.add("wrong answers to duplicates afterwards", 0, bound="0")
    assert resident <= MAX_BYTES
