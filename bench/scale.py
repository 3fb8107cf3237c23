"""Two conversations workers against one."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

from bench import data
from bench.contest import PARTITIONS, work_through
from bench.figures import Figure
from bench.run import Run, say
from bench.worker import clients, of_records, ours
from openbat.connection import Connection
from openbat.kafka import migrate_topics
from tests.brokers import brokers
from tests.soak.workers import worker

SIZE = 8
"""Captures a record."""


def measure(run: Run, directory: Path) -> Figure:
    """Compare what workers take per processor second, times how many there are."""
    with ExitStack() as exits:
        connections = []
        pids = []
        for count in (1, 2):
            home = directory / f"{count}"
            (broker,) = exits.enter_context(brokers(home))
            asyncio.run(migrate_topics(broker.connection, PARTITIONS, replication_factor=1))
            running = [
                exits.enter_context(worker(broker.connection, home / f"worker-{at}"))
                for at in range(count)
            ]
            for each in running:
                each.wait_ready()
            connections.append(broker.connection)
            pids.append([each.running.pid for each in running])
        return asyncio.run(_contest(run, connections, pids))


async def _contest(run: Run, connections: list[Connection], pids: list[list[int]]) -> Figure:
    figure = Figure(
        "two conversations workers", "captures/CPU-s of one, times workers", "one worker", 1.7, 1.9,
        note="the broker and two workers share two cores, so processor time is compared",
    )  # fmt: skip
    async with clients(connections[0]) as one, clients(connections[1]) as two:
        for at in range(-1, run.rounds):
            backlog = of_records(data.frames(f"s{at}", run.captures), SIZE)
            alone = await work_through(ours(one[1], *pids[0]), backlog, one[0])
            both = await work_through(ours(two[1], *pids[1]), backlog, two[0])
            say(f"one worker: {alone.cpu:,.0f} captures per CPU-second, two: {both.cpu:,.0f}")
            if at >= 0:
                figure.add(len(pids[1]) * both.cpu, alone.cpu)
    return figure
