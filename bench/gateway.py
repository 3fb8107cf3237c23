"""The gateway at saturation, against itself without publishing, bare Starlette, and FastAPI."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import servers, wrk
from bench.contest import make_topics
from bench.figures import Figure
from bench.meter import Meter
from bench.run import BenchError, Run, say
from tests.stack import ROOT, Stack

BESIDE_RATE = 1_500
"""Captures a second through the stack, while a peer is measured beside it."""
NOTHING, CONSTANT = "the same gateway, publishing nothing", "bare Starlette, a constant answer"
TOLERATED = 0.01
"""The share of answers that may be provisional: more, and exact answers were not on."""


def measure(run: Run, stack: Stack, directory: Path) -> list[Figure]:
    """Compare requests per processor second of the process that serves."""
    key = stack.state["api_key"]
    bodies = wrk.write_bodies(directory)
    asyncio.run(make_topics(stack.connection, [servers.FASTAPI_TOPIC]))
    (pid,) = stack.pids("gateway")
    figures = [
        Figure("gateway", "requests/CPU-s", NOTHING, 0.85, 0.95),
        Figure("gateway", "requests/CPU-s", CONSTANT, 0.45, 0.6),
        Figure(
            "gateway", "requests/CPU-s", "FastAPI + pydantic + aiokafka", 2.0, 3.0,
            note="the peer answers how many messages it took, ours how many were new",
        ),
    ]  # fmt: skip
    beside = Figure(
        "the same gateway, publishing nothing, beside the stack", "requests/CPU-s", NOTHING,
        note=f"{BESIDE_RATE:,} captures/s go through the stack meanwhile",
    )  # fmt: skip
    against_constant = Figure(NOTHING, "requests/CPU-s", CONSTANT)
    with ExitStack() as exits:
        peers = [
            exits.enter_context(started)
            for started in (
                servers.validating(directory, key),
                servers.constant(directory),
                servers.fastapi(directory, key, stack.state["kafka_bootstrap"]),
            )
        ]
        nothing, constant, _ = peers
        ours = servers.Server(f"{stack.gateway_url}/api/v1/capture", pid)
        for at in range(-1, run.rounds):
            # One round warms up. Each begins with another of them.
            found: dict[int, float] = {}
            everyone = [ours, *peers]
            turn = at % len(everyone)
            for one in everyone[turn:] + everyone[:turn]:
                meter = Meter(one.pid)
                answers = wrk.post(one.url, key, bodies, f"g{at}", run.seconds)
                found[one.pid] = answers.requests / meter.cpu()
                say(
                    f"gateway, round {at + 1}: {one.url} {answers.requests / answers.seconds:,.0f}"
                    f" requests/s, {found[one.pid]:,.0f} per CPU-second"
                )
                if one is ours and answers.provisional > TOLERATED * answers.requests:
                    raise BenchError(f"answers were provisional: {answers}")
            with _load(run, stack, f"b{at}"):
                meter = Meter(nothing.pid)
                answers = wrk.post(nothing.url, key, bodies, f"n{at}", run.seconds)
                busy = answers.requests / meter.cpu()
            say(f"gateway, publishing nothing, beside the stack: {busy:,.0f} per CPU-second")
            if at < 0:
                continue
            for figure, peer in zip(figures, peers, strict=True):
                figure.add(found[pid], found[peer.pid])
            beside.add(busy, found[nothing.pid])
            against_constant.add(found[nothing.pid], found[constant.pid])
    return [*figures, beside, against_constant]


@contextmanager
def _load(run: Run, stack: Stack, name: str) -> Iterator[None]:
    """Have captures go through the stack meanwhile."""
    command = [
        sys.executable, "-m", "bench.load", f"{stack.gateway_url}/api/v1/capture",
        stack.state["api_key"], name, str(BESIDE_RATE), str(run.seconds),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as loading:
        yield
        if loading.wait(run.seconds + 60):
            raise BenchError(f"bench.load failed: it ended with {loading.returncode}")
