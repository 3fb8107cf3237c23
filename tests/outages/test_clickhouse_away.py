"""ClickHouse is away, full, or behind with its merges: captures go on, and the rows come later."""

import asyncio
import time

import pytest

from tests.outages.rig import Rig, at_most, judge, say
from tests.report import Figure, Report
from tests.resident import resident_mib

GROWTH_MIB = 400.0
"""Two batches of 50,000 rows at most, as Python's objects and as bytes."""


@pytest.mark.timeout(1200)
async def test_without_clickhouse_captures_go_on_and_the_backlog_drains(
    rig: Rig, full: bool, report: Report
) -> None:
    away_seconds = 600.0 if full else 3.0
    worker = rig.roles["clickhouse"].pid
    async with rig.load("clickhouse", clients=64, pause_seconds=0.1) as load:
        await load.exact_everywhere(time.monotonic(), 30)
        memory = resident_mib(worker)
        say(f"ClickHouse goes away for {away_seconds:g} s")
        await asyncio.to_thread(rig.engine.kill)
        started = time.monotonic()
        had = load.messages
        while (left := started + away_seconds - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 30))
            say(f"{load.messages} messages taken")
        arrived = (load.messages - had) / away_seconds
        answers = load.between(started)
        exact = sum(answer.is_exact for answer in answers) / len(answers)
        refused = sum(answer.status != 200 for answer in answers)
        grown = resident_mib(worker) - memory
    await rig.start_engine()
    back = time.monotonic()
    waiting = load.messages - await rig.rows("clickhouse")
    say(f"ClickHouse is back; {waiting} rows wait")
    await load.count(300)
    drained = time.monotonic() - back
    grown = max(grown, resident_mib(worker) - memory)
    title = f"ClickHouse away {away_seconds:g} s"
    rate = waiting / drained
    judge(
        report,
        [
            Figure(f"{title}: answers other than 200", refused, "", "0", not refused),
            Figure(f"{title}: share of exact answers", exact, "", ">= 0.99", exact >= 0.99),
            Figure(f"{title}: arrival", arrived, "rows/s"),
            Figure(f"{title}: rows that waited", waiting, "", "> 0", waiting > 0),
            Figure(f"{title}: until all were there", drained, "s"),
            Figure(f"{title}: drain", rate, "rows/s", "> arrival", rate > arrived or not full),
            at_most(f"{title}: growth of the worker's memory", grown, GROWTH_MIB, "MiB"),
            Figure(f"{title}: messages answered with 200, each stored once", load.messages),
        ],
    )
    assert rig.roles["clickhouse"].pid == worker


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "setting", "error"),
    [
        ("Full disk", f"min_free_disk_bytes_to_perform_insert={1 << 60}", "code: 243"),
        ("Too many parts", "parts_to_throw_insert=1", "code: 252"),
    ],
)
async def test_what_clickhouse_refuses_for_now_is_kept_and_written_later(
    rig: Rig, full: bool, report: Report, name: str, setting: str, error: str
) -> None:
    worker = rig.roles["clickhouse"]
    pid = worker.pid
    said = worker.log_path.read_text().count(error)
    label = name.replace(" ", "-")
    load = rig.load(label, clients=16)
    async with load, rig.table_setting(setting):
        say(name)
        started = len(load.answers)
        await load.until(
            lambda: worker.log_path.read_text().count(error) > said, 30, "a refused insert"
        )
        await asyncio.sleep(60.0 if full else 0.5)
        await load.exact_everywhere(time.monotonic(), 10)
        answers = load.answers[started:]
        exact = sum(answer.is_exact for answer in answers) / len(answers)
        missing = load.messages - await rig.rows(label)
    healed = time.monotonic()
    await load.count(60)
    seconds = time.monotonic() - healed
    judge(
        report,
        [
            Figure(f"{name}: share of exact answers", exact, "", ">= 0.99", exact >= 0.99),
            Figure(f"{name}: rows that waited", missing, "", "> 0", missing > 0),
            at_most(f"{name}: until all were there", seconds, 30, "s"),
        ],
    )
    assert worker.pid == pid
