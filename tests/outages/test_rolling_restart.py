"""Every process is told to stop, one after the other, under load; the supervisor replaces it."""

import asyncio
import os
import signal
import time

import pytest

from tests.load import NO_ANSWER, Load, quantile
from tests.outages.rig import at_most, judge, say
from tests.report import Figure, Report
from tests.stack import Stack, wait_until

ROLES = ("gateway", "conversations", "clickhouse")
PROVISIONAL_SECONDS = 10.0
"""A session: a worker that is not back within it has its partitions given to others."""
BUSY_SECONDS = 40.0
"""The same where other tests may keep the machine busy, and a start takes longer than a session."""
END_SECONDS = 20.0


def times_ready(stack: Stack, role: str) -> int:
    """Return how often processes of a role said that they are ready."""
    logs = (stack.data_dir / "logs").glob(f"{role}-[0-9].log")
    return sum(log.read_text().count('"event": "ready"') for log in logs)


async def restart(stack: Stack, load: Load, role: str, pid: int) -> tuple[float, float]:
    """Restart a process; return when it was told to stop, and how long until it was replaced.

    The new one is ready when this returns, and captures are exact again.
    """
    before = times_ready(stack, role)
    at = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    await asyncio.to_thread(
        wait_until, lambda: pid not in stack.pids(role), END_SECONDS, f"{role} is replaced"
    )
    took = time.monotonic() - at
    await asyncio.to_thread(
        wait_until, lambda: times_ready(stack, role) > before, 60, f"{role} is ready again"
    )
    await load.exact_everywhere(time.monotonic(), 60)
    say(f"{role} {pid} replaced after {took:.1f} s")
    return at, took


@pytest.mark.timeout(600)
async def test_a_rolling_restart_breaks_nothing(stack: Stack, full: bool, report: Report) -> None:
    ends = []
    spans = []
    provisional: list[set[int]] = []
    async with Load(stack, "rolling", clients=32, pause_seconds=0.2) as load:
        started = time.monotonic()
        await load.exact_everywhere(started, 30)
        for _ in range(3 if full else 1):
            for role in ROLES:
                for pid in stack.pids(role):
                    at, took = await restart(stack, load, role, pid)
                    ends.append(took)
                    late = [answer for answer in load.between(at) if not answer.is_exact]
                    spans.append(
                        max((answer.at + answer.seconds - at for answer in late), default=0)
                    )
                    if role == "conversations":
                        provisional.append({answer.partition for answer in late})
        await load.exact_everywhere(time.monotonic(), 30)
    await load.count(60)
    refused = sum(answer.status == 503 for answer in load.answers)
    broken = sum(answer.status == NO_ANSWER for answer in load.answers)
    others = {answer.status for answer in load.answers} - {200, 503, NO_ANSWER}
    apart = all(
        not first & second
        for first, second in zip(provisional[::2], provisional[1::2], strict=True)
    )
    title = f"Rolling restart of {len(ends)} processes"
    judge(
        report,
        [
            Figure(f"{title}: captures", len(load.answers)),
            Figure(f"{title}: 503", refused, "", "0", refused == 0),
            Figure(f"{title}: broken connections", broken, "", "0", broken == 0),
            Figure(f"{title}: other statuses", str(others or "none"), "", "none", not others),
            Figure(f"{title}: p99", quantile(load.answers, 0.99), "ms"),
            Figure(f"{title}: slowest", quantile(load.answers, 1.0), "ms"),
            at_most(f"{title}: slowest end of a process", max(ends), END_SECONDS, "s"),
            at_most(
                f"{title}: provisional after a restart",
                max(spans),
                PROVISIONAL_SECONDS if full else BUSY_SECONDS,
                "s",
            ),
            Figure(
                f"{title}: each worker's partitions alone",
                str(apart),
                "",
                "True",
                apart or not full,
            ),
            Figure(f"{title}: messages answered with 200, each stored once", load.messages),
        ],
    )
