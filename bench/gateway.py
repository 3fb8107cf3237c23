"""The gateway at saturation, against itself without publishing, bare Starlette, and FastAPI."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from bench import servers, wrk
from bench.contest import make_topics
from bench.figures import Figure
from bench.load import post
from bench.meter import Meter
from bench.run import BenchError, Run, say
from tests.stack import Stack

BESIDE_RATE = 1_500
"""Captures a second through the stack, while a peer is measured beside it."""
ROUND_SECONDS = 3
TIMES_AS_MANY = 2
"""Rounds are short and many: a machine's speed changes within one. 8 s give the same ratios."""
STARTED_SECONDS = 2.0
"""How long the load takes to start; it lasts that much longer."""
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
        alone = [(each, False) for each in (ours, *peers)]
        everyone = [*alone, (nothing, True)]
        for at in range(-1, TIMES_AS_MANY * run.rounds):
            # One round warms up. Each begins with another of them.
            found: dict[tuple[servers.Server, bool], float] = {}
            turn = at % len(everyone)
            for one in everyone[turn:] + everyone[:turn]:
                server, is_beside = one
                with _load(stack, f"b{at}") if is_beside else nullcontext():
                    meter = Meter(server.pid)
                    answers = wrk.post(server.url, key, bodies, f"g{at}", ROUND_SECONDS)
                    found[one] = answers.requests / meter.cpu()
                say(
                    f"gateway, round {at + 1}: {server.url}{' beside the stack' * is_beside} "
                    f"{answers.requests / answers.seconds:,.0f} requests/s, {found[one]:,.0f} per "
                    "CPU-second"
                )
                if server is ours and answers.provisional > TOLERATED * answers.requests:
                    raise BenchError(f"answers were provisional: {answers}")
            if at < 0:
                continue
            for figure, peer in zip(figures, peers, strict=True):
                figure.add(found[ours, False], found[peer, False])
            beside.add(found[nothing, True], found[nothing, False])
            against_constant.add(found[nothing, False], found[constant, False])
    return [*figures, beside, against_constant]


@contextmanager
def _load(stack: Stack, name: str) -> Iterator[None]:
    """Have captures go through the stack meanwhile.

    Raises:
        BenchError: not every one was answered.

    """
    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(post, stack, name, BESIDE_RATE, ROUND_SECONDS + 1)
        time.sleep(STARTED_SECONDS)
        yield
        posting.result()
