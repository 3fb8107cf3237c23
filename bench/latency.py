"""Exact answers at half of saturation, against the durable write alone at the same rate."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from bench import echo
from bench.contest import make_topics
from bench.figures import Figure
from bench.load import Latencies, decode, post
from bench.run import BenchError, Run, say
from tests.stack import ROOT, Stack, process, wait_until

ALONE, ASKED, REPLIES = "peer-produced", "peer-asked", "peer-replies"
READY_SECONDS = 30.0


def measure(run: Run, stack: Stack, directory: Path, saturation: float) -> list[Figure]:
    """Compare latencies, from when a capture was due.

    Raises:
        BenchError: a capture was not answered, or not exactly.

    """
    bootstrap = stack.state["kafka_bootstrap"]
    asyncio.run(make_topics(stack.connection, [ALONE, ASKED, REPLIES]))
    log = directory / "echo.log"
    command = [sys.executable, "-m", "bench.echo", bootstrap, ASKED, REPLIES]
    with process(command, os.environ, log):
        wait_until(lambda: echo.READY in log.read_text(), READY_SECONDS, "bench.echo")
        return _compare(run, stack, bootstrap, saturation / 2)


def _compare(run: Run, stack: Stack, bootstrap: str, rate: float) -> list[Figure]:
    note = f"{rate:,.0f} captures/s, half of what the whole stack takes here"
    answers = [
        Figure(f"exact answer, {name}", "ms", "acks=all alone", must, aim, is_cost=True, note=note)
        for name, must, aim in (("p50", 5.0, 3.0), ("p99", 4.0, 2.0))
    ]
    replies = [
        Figure(
            f"a record and a reply to it, {name}", "ms", "acks=all alone", is_cost=True,
            note="two bare clients at the same rate, a record per capture",
        )
        for name in ("p50", "p99")
    ]  # fmt: skip
    at_rate = (str(rate), str(run.seconds))
    for at in range(-1, run.rounds):
        ours = post(stack, f"l{at}", rate, run.seconds)
        reply = _produce(bootstrap, ASKED, *at_rate, REPLIES)
        alone = _produce(bootstrap, ALONE, *at_rate)
        say(
            f"latency, round {at + 1}: exact answer {ours.p50:.1f} ms, p99 {ours.p99:.1f} ms; "
            f"a record and its reply {reply.p50:.1f} ms, p99 {reply.p99:.1f} ms; "
            f"produce alone {alone.p50:.1f} ms, p99 {alone.p99:.1f} ms"
        )
        if at < 0:
            continue
        if ours.inexact:
            raise BenchError(f"not every capture was answered exactly: {ours}")
        if reply.answered != reply.sent:
            raise BenchError(f"not every record had its reply: {reply}")
        for compared, found in ((answers, ours), (replies, reply)):
            compared[0].add(found.p50, alone.p50)
            compared[1].add(found.p99, alone.p99)
    return [*answers, *replies]


def _produce(*arguments: str) -> Latencies:
    done = subprocess.run(
        [sys.executable, "-m", "bench.produce", *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    return decode(done.stdout)
