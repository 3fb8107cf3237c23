"""Rounds of faults on one stack under load, and the oracle at their end."""

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
from msgspec import Struct

from openbat.kafka import captures_partitions
from tests.conversations import real_or_made_up
from tests.crash import failpoints, oracle
from tests.crash.clients import Clients
from tests.crash.faults import Cluster, Fault, NotReachedError, clear
from tests.stack import Stack, local_stack

RECOVERY_SECONDS = 60.0
CALM_SECONDS = 1.0
"""Of load between the end of a round and the next fault, at most."""
CONVERSATIONS = 4000


class Round(Struct):
    """One fault, and how long all took to recover from it.

    Attributes:
        exact_seconds: until captures of every partition were answered exactly again.
        rows_seconds: until what was answered of every partition by then was in ClickHouse.

    """

    role: str
    moment: str
    kills: int
    exact_seconds: float
    rows_seconds: float


class Outcome(Struct):
    """What one campaign found; `answers` by kind, `refused` attempts by what came instead."""

    rounds: list[Round]
    deviations: list[str]
    captures: int = 0
    messages: int = 0
    answers: dict[str, int] = {}
    refused: dict[str, int] = {}
    longest_silence_seconds: float = 0.0


def run(
    directory: Path,
    faults: Sequence[Fault],
    seed: int,
    on_round: Callable[[Round], None] = lambda _: None,
    sabotage: str = "",
) -> Outcome:
    """Run a campaign in a directory of its own, which is left there where something deviates."""
    shutil.rmtree(directory, ignore_errors=True)
    with crash_stack(directory, sabotage) as stack:
        cluster = Cluster(stack, directory / "failpoints", random.Random(seed))  # noqa: S311
        outcome = asyncio.run(_run(cluster, faults, seed, on_round))
    if not outcome.deviations:
        shutil.rmtree(directory)
    return outcome


def crash_stack(directory: Path, sabotage: str = "") -> AbstractContextManager[Stack]:
    """Run a stack with two of each role that scales, whose processes have failpoints."""
    return local_stack(
        directory / "data",
        OPENBAT_GATEWAYS="2",
        OPENBAT_CONVERSATIONS_WORKERS="2",
        OPENBAT_CLICKHOUSE_WORKERS="2",
        **failpoints.environment(directory / "failpoints", sabotage),
    )


async def clients_of(stack: Stack, seed: int) -> Clients:
    """Return clients of a stack, not started yet."""
    partitions = await captures_partitions(stack.connection)
    state = stack.state
    return Clients(
        state["gateway_url"], state["api_key"], partitions, real_or_made_up(CONVERSATIONS), seed
    )


async def recovered(clients: Clients, since: float) -> float:
    """Return how long it takes from then on until every partition was answered exactly.

    Raises:
        TimeoutError: one was not.

    """
    async with asyncio.timeout(RECOVERY_SECONDS):
        while min(clients.exact_at.values()) < since:
            if (failed := clients.failed()) is not None:
                raise failed
            await asyncio.sleep(0.02)
    return time.monotonic() - since


async def written(stack: Stack, clients: Clients, since: float) -> float:
    """Return how long it takes from then on until what is answered of every partition now is rows.

    Raises:
        TimeoutError: something is not.

    """
    newest = list(clients.newest.values())
    query = (
        "SELECT uniqExact(conversation_id, message_id) AS rows FROM openbat.messages "
        "WHERE (toString(conversation_id), message_id) IN "
        f"({', '.join(map(str, newest))})"
    )
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if await asyncio.to_thread(stack.sql, query) == [{"rows": len(set(newest))}]:
                    return time.monotonic() - since
            await asyncio.sleep(0.1)


async def _run(
    cluster: Cluster, faults: Sequence[Fault], seed: int, on_round: Callable[[Round], None]
) -> Outcome:
    outcome = Outcome([], [])
    async with await clients_of(cluster.stack, seed) as clients:
        await recovered(clients, time.monotonic())
        for fault in faults:
            await asyncio.sleep(CALM_SECONDS * cluster.dice.random())
            clear(cluster.failpoints)
            try:
                kills = await fault.inject(cluster)
                since = time.monotonic()
                exact_seconds = await recovered(clients, since)
                rows_seconds = await written(cluster.stack, clients, since)
            except (NotReachedError, TimeoutError) as error:
                outcome.deviations.append(f"{fault.role}, {fault.moment}: {error!r}")
                break
            outcome.rounds.append(
                Round(fault.role, fault.moment, kills, exact_seconds, rows_seconds)
            )
            on_round(outcome.rounds[-1])
    expected = await oracle.expected_of(cluster.stack.connection)
    outcome.deviations += await oracle.check(cluster.stack, clients.journal, expected)
    outcome.captures = len(clients.journal.posted)
    outcome.messages = expected.messages
    outcome.answers = dict(oracle.answers_by_kind(clients.journal))
    outcome.refused = clients.journal.refused
    outcome.longest_silence_seconds = clients.journal.longest_silence
    return outcome
