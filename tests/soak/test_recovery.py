"""A worker that lost its disk rebuilds its table, and answers as if it had not."""

import asyncio
import time
from pathlib import Path

import pytest

from openbat.kafka import migrate_topics
from tests.brokers import brokers
from tests.captures import open_log
from tests.report import Report
from tests.soak.changelog import CAPTURES, conversation, fill
from tests.soak.memory import MIB, resident_bytes
from tests.soak.workers import worker

PARTITIONS = 4
ENTRIES = {True: 1_000_000, False: 20_000}
ASKED = 200
MAX_BYTES = 600 * MIB


def seconds_to_ready(bootstrap: str, directory: Path) -> tuple[float, int]:
    """Return how long a worker takes to get ready, and what it keeps in memory then."""
    begun = time.monotonic()
    with worker(bootstrap, directory) as started:
        started.wait_ready()
        return time.monotonic() - begun, resident_bytes(started.running.pid)


async def ask(bootstrap: str, conversations: int) -> None:
    """Repeat captures that the table knows, and some that it does not."""
    async with open_log(bootstrap) as log:
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
        asyncio.run(migrate_topics(broker.bootstrap, PARTITIONS, replication_factor=1))
        idle_seconds, idle_bytes = seconds_to_ready(broker.bootstrap, tmp_path / "first")
        conversations = asyncio.run(fill(broker.bootstrap, entries))
        seconds, resident = seconds_to_ready(broker.bootstrap, tmp_path / "second")
        # Its table is on its disk now: it goes on from there.
        with worker(broker.bootstrap, tmp_path / "second") as recovered:
            recovered.wait_ready()
            asyncio.run(ask(broker.bootstrap, conversations))
        again, _ = seconds_to_ready(broker.bootstrap, tmp_path / "second")
    per_million = (seconds - idle_seconds) * 1_000_000 / entries
    report.add("entries of a changelog that is read from its beginning", entries)
    report.add("recovery, beyond a worker's start", per_million, "s per million entries")
    report.add("a worker's start with an empty changelog", idle_seconds, "s")
    report.add("a worker's start with its table on its disk", again, "s")
    report.add("memory with an empty table", idle_bytes / MIB, "MiB")
    report.add(
        "memory after the recovery", resident / MIB, "MiB",
        bound=f"at most {MAX_BYTES / MIB:.0f} MiB", holds=resident <= MAX_BYTES,
    )  # fmt: skip
    report.add("wrong answers to duplicates afterwards", 0, bound="0")
    assert resident <= MAX_BYTES
