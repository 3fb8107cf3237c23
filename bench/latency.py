"""Exact answers at half of saturation, against the durable write alone at the same rate."""

import asyncio
import subprocess
import sys

from bench.contest import PARTITIONS, make_topics
from bench.figures import Figure
from bench.load import Latencies, decode
from bench.run import BenchError, Run, say
from tests.stack import ROOT, Stack

TOPIC = "peer-produced"


def measure(run: Run, stack: Stack, saturation: float) -> list[Figure]:
    """Compare latencies, from when a capture was due.

    Raises:
        BenchError: a capture was not answered, or not exactly.

    """
    rate = saturation / 2
    asyncio.run(make_topics(stack.connection, [TOPIC]))
    note = f"{rate:,.0f} captures/s, half of what the whole stack takes here"
    figures = [
        Figure(f"exact answer, {name}", "ms", "acks=all alone", must, aim, is_cost=True, note=note)
        for name, must, aim in (("p50", 5.0, 3.0), ("p99", 4.0, 2.0))
    ]
    for at in range(-1, run.rounds):
        url = f"{stack.gateway_url}/api/v1/capture"
        key = stack.state["api_key"]
        ours = _run("bench.load", url, key, f"l{at}", str(rate), str(run.seconds))
        peer = _run(
            "bench.produce", stack.state["kafka_bootstrap"], TOPIC, str(PARTITIONS), str(rate),
            str(run.seconds),
        )  # fmt: skip
        say(
            f"latency, round {at + 1}: exact answer {ours.p50:.1f} ms, p99 {ours.p99:.1f} ms; "
            f"produce alone {peer.p50:.1f} ms, p99 {peer.p99:.1f} ms"
        )
        if at < 0:
            continue
        if ours.answered != ours.sent or ours.inexact:
            raise BenchError(f"not every capture was answered exactly: {ours}")
        figures[0].add(ours.p50, peer.p50)
        figures[1].add(ours.p99, peer.p99)
    return figures


def _run(module: str, *arguments: str) -> Latencies:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    return decode(done.stdout)
