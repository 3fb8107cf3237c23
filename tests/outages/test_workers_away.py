"""The conversations workers are away: answers are durable, provisional and quick."""

import asyncio
import os
import signal
import time

import pytest

from tests.load import quantile
from tests.outages.rig import Rig, at_most, judge, say
from tests.report import Figure, Report

SETTLING_SECONDS = 1.5
"""The default wait for an exact count, after which a partition's breaker opens, and a little."""
RECOVERY_SECONDS = 30.0


@pytest.mark.timeout(300)
async def test_without_workers_answers_are_provisional_and_quick(
    rig: Rig, full: bool, report: Report
) -> None:
    away_seconds = 60.0 if full else 3.0
    async with rig.load("workers", clients=32) as load:
        start = time.monotonic()
        await load.exact_everywhere(start, 30)
        await asyncio.sleep(10.0 if full else 1.0)
        say(f"the conversations worker is stopped for {away_seconds:g} s")
        stopped = rig.roles["conversations"].pid
        os.kill(stopped, signal.SIGSTOP)
        gone = time.monotonic()
        try:
            await asyncio.sleep(away_seconds)
        finally:
            os.kill(stopped, signal.SIGCONT)
        back = time.monotonic()
        await load.exact_everywhere(back, 60)
        recovered = time.monotonic() - back
        await asyncio.sleep(10.0 if full else 0.5)
        await load.exact_everywhere(time.monotonic(), 10)
    await load.count(60)
    before = load.between(start, gone)
    during = load.between(gone + SETTLING_SECONDS, back)
    refused = [answer for answer in load.answers if answer.status != 200]
    exact = [answer for answer in during if answer.is_exact]
    p50, p99 = quantile(during, 0.5), quantile(during, 0.99)
    longest = min(quantile(before, 0.5), 100) if full else 100
    title = f"Workers away {away_seconds:g} s"
    judge(
        report,
        [
            Figure(f"{title}: answers other than 200", len(refused), "", "0", not refused),
            Figure(f"{title}: answers meanwhile", len(during)),
            Figure(f"{title}: exact ones among them", len(exact), "", "0", not exact),
            Figure(f"{title}: p50 before", quantile(before, 0.5), "ms"),
            Figure(f"{title}: p99 before", quantile(before, 0.99), "ms"),
            # Who does not wait for a worker is answered no later than who does.
            at_most(f"{title}: p50 meanwhile", p50, longest, "ms"),
            at_most(f"{title}: p99 meanwhile", p99, 500, "ms"),
            at_most(f"{title}: exact everywhere after", recovered, RECOVERY_SECONDS, "s"),
            Figure(f"{title}: messages answered with 200, each stored once", load.messages),
        ],
    )
