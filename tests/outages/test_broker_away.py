"""Kafka is away: captures are refused soon, nothing piles up, and all goes on when it is back."""

import asyncio
import time

import pytest

from tests.load import Load, quantile
from tests.outages.rig import PARTITIONS, Rig, at_most, judge, say
from tests.report import Figure, Report
from tests.resident import resident_mib

LATE_SECONDS = 0.5
RECOVERY_SECONDS = 30.0
GROWTH_MIB = 64.0
LOOKED_SECONDS = 1.0
LOOKS = 50


async def least_waiting(load: Load) -> int:
    """Return how many requests wait for their answers at all times, for a second.

    A request that is refused at once is under way for a moment, too.
    """
    found = []
    for _ in range(LOOKS):
        found.append(load.waiting)
        await asyncio.sleep(LOOKED_SECONDS / LOOKS)
    return min(found)


@pytest.mark.timeout(600)
async def test_without_kafka_captures_are_refused_and_none_is_lost(
    rig: Rig, full: bool, report: Report
) -> None:
    away_seconds = 60.0 if full else 4.0
    gateway = rig.roles["gateway"].pid
    async with rig.load("broker", clients=200, pause_seconds=0.5) as load:
        await load.exact_everywhere(time.monotonic(), 30)
        memory = resident_mib(gateway)
        say(f"Kafka goes away for {away_seconds:g} s")
        await asyncio.to_thread(rig.broker.process.kill)
        gone = time.monotonic()
        await asyncio.sleep(rig.produce_seconds + LATE_SECONDS)
        settled = time.monotonic()
        await asyncio.sleep(max(away_seconds - (settled - gone) - LOOKED_SECONDS, 0))
        grown = resident_mib(gateway) - memory
        waiting = await least_waiting(load)
        await rig.start_broker()
        back = time.monotonic()
        say("Kafka is back")
        await load.exact_everywhere(back, 120)
        recovered = time.monotonic() - back
    await load.count(60)
    assert rig.roles["gateway"].pid == gateway

    refused = [answer for answer in load.between(gone - 10, back) if answer.status == 503]
    at_once = [answer for answer in load.between(settled, back - 1) if answer.status == 503]
    statuses = {answer.status for answer in load.answers}
    title = f"Kafka away {away_seconds:g} s"
    judge(
        report,
        [
            at_most(
                f"{title}: slowest 503",
                quantile(refused, 1.0),
                1000 * (rig.produce_seconds + LATE_SECONDS),
                "ms",
            ),
            at_most(
                f"{title}: p99 of 503 once the time-out has passed",
                quantile(at_once, 0.99),
                1000 * LATE_SECONDS,
                "ms",
            ),
            at_most(f"{title}: requests that wait at all times", waiting, PARTITIONS),
            at_most(f"{title}: growth of the gateway's memory", grown, GROWTH_MIB, "MiB"),
            at_most(
                f"{title}: exact everywhere after its return", recovered, RECOVERY_SECONDS, "s"
            ),
            Figure(f"{title}: captures refused", len(refused), "", "> 0", bool(refused)),
            Figure(
                f"{title}: statuses",
                str(sorted(statuses)),
                "",
                "[200, 503]",
                statuses == {200, 503},
            ),
            Figure(f"{title}: messages answered with 200, each stored once", load.messages),
        ],
    )
