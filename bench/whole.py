"""The whole stack at saturation: all roles together, every answer exact."""

import asyncio
import time
from pathlib import Path
from typing import NamedTuple

from aiokafka import TopicPartition

from bench import wrk
from bench.figures import Reading
from bench.meter import Meter
from bench.run import BenchError, Run, say
from openbat.kafka import captures_partitions, make_reader
from schemas import topics
from tests.resident import resident_mib
from tests.stack import Stack

ROLES = ("gateway", "conversations", "clickhouse")
DRAINED_SECONDS = 120.0


class Whole(NamedTuple):
    """What the stack did at saturation.

    Attributes:
        captures: per processor second of all roles together, a value per round.
        rate: captures per second on the clock, the median.
        size: captures a record.
        readings: memory, shares of the processor.

    """

    captures: list[float]
    rate: float
    size: float
    readings: list[Reading]


def measure(run: Run, stack: Stack, directory: Path) -> Whole:
    """Post at saturation; measure until the last row is in ClickHouse.

    Raises:
        BenchError: an answer was not exact.

    """
    bodies = wrk.write_bodies(directory)
    pids = {role: stack.pids(role)[0] for role in ROLES}
    idle = {role: resident_mib(pid) for role, pid in pids.items()}
    captures, rates, counted, written = [], [], 0, 0
    spent = dict.fromkeys(ROLES, 0.0)
    rows = row_count(stack)
    for at in range(-1, run.rounds):
        before = records(stack)
        meters = {role: Meter(pid) for role, pid in pids.items()}
        url = f"{stack.gateway_url}/api/v1/capture"
        answers = wrk.post(url, stack.state["api_key"], bodies, f"e{at}", run.seconds)
        if answers.provisional and at >= 0:
            raise BenchError(f"answers were provisional: {answers}")
        rows = drained(stack, rows)
        cpu = {role: meter.cpu() for role, meter in meters.items()}
        say(
            f"whole stack, round {at + 1}: {answers.requests / answers.seconds:,.0f} captures/s, "
            f"{answers.requests / sum(cpu.values()):,.0f} per CPU-second of all roles"
        )
        if at < 0:
            continue
        captures.append(answers.requests / sum(cpu.values()))
        rates.append(answers.requests / answers.seconds)
        counted += answers.requests
        written += records(stack) - before
        for role in ROLES:
            spent[role] += cpu[role]
    readings = [
        Reading(
            f"whole stack, {role}", 1e6 * spent[role] / counted, "µs of processor time a capture"
        )
        for role in ROLES
    ]
    for role, pid in pids.items():
        readings.append(Reading(f"memory of {role}, idle", idle[role], "MiB"))
        readings.append(Reading(f"memory of {role}, after saturation", resident_mib(pid), "MiB"))
    return Whole(captures, sorted(rates)[len(rates) // 2], counted / written, readings)


def row_count(stack: Stack) -> int:
    return int(stack.sql("SELECT count() AS rows FROM openbat.message_rows")[0]["rows"])


def drained(stack: Stack, before: int) -> int:
    """Return how many rows there are once no more come."""
    end = time.monotonic() + DRAINED_SECONDS
    seen, since = before, time.monotonic()
    while time.monotonic() - since < 2:
        if time.monotonic() > end:
            raise BenchError("ClickHouse did not get all rows")
        time.sleep(0.2)
        if (found := row_count(stack)) != seen:
            seen, since = found, time.monotonic()
    return seen


def records(stack: Stack) -> int:
    """Return how many records `captures` has."""

    async def count() -> int:
        partitions = await captures_partitions(stack.connection)
        reader = make_reader(stack.connection)
        await reader.start()
        try:
            tps = [TopicPartition(topics.CAPTURES, at) for at in range(partitions)]
            return sum((await reader.end_offsets(tps)).values())
        finally:
            await reader.stop()

    return asyncio.run(count())
