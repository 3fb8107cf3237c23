"""A pipeline of one process a role, whose roles are scaled while it works."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from openbat.chatbots import create, new_key
from openbat.local import state
from schemas import topics
from tests.brokers import brokers
from tests.scaling.conversation import Chatbot
from tests.scaling.group import Groups
from tests.stack import Stack, free_port
from tests.upgrade.fleet import Fleet, Place, fleet
from tests.upgrade.releases import CURRENT

PARTITIONS = 8
CHATBOTS = ("bakery", "bank", "library")
MOST = 4
"""Processes of a role."""
POLL_SECONDS = 0.25


class Worker(NamedTuple):
    """A role, its group, and the topics that it reads without a pause."""

    role: str
    group: str
    topics: tuple[str, ...]


WORKERS = (
    Worker("analysis", topics.ANALYSIS_GROUP, (topics.ANALYSIS,)),
    Worker("clickhouse", topics.CLICKHOUSE_GROUP, (topics.MESSAGES, topics.ANALYSES)),
    Worker("conversations", topics.CONVERSATIONS_GROUP, (topics.CAPTURES,)),
)
"""Against the stream: one that shrinks takes nothing from what waits for the next."""


class Pipeline:
    """What runs, and how many of each.

    Attributes:
        stack: the way in for commands and SQL.
        groups: what Kafka knows of the workers.
        gateways: where captures may be sent: those that are ready, until they have ended.
        chatbots: that captures may be of.

    """

    def __init__(
        self, stack: Stack, groups: Groups, processes: Fleet, ports: dict[Place, int]
    ) -> None:
        self.stack = stack
        self.groups = groups
        self.gateways: list[str] = []
        self.chatbots: list[Chatbot] = []
        self._processes = processes
        self._ports = ports

    async def start(self, *places: Place) -> None:
        """Start processes; return when all are ready."""
        await asyncio.to_thread(self._processes.start, CURRENT, *places)
        self.gateways += [self._url(place) for place in places if place in self._ports]

    async def stop(self, *places: Place) -> None:
        """Stop processes, each of which drains. Who sends to a gateway hears of it afterwards."""
        await asyncio.gather(*(asyncio.to_thread(self._processes.stop, place) for place in places))
        for place in places:
            if place in self._ports:
                self.gateways.remove(self._url(place))

    async def shared_by(self, worker: Worker, count: int, seconds: float) -> None:
        """Return when so many members share a group's partitions, each of them one at least."""

        async def shared() -> bool:
            shares = await self.groups.shares(worker.group, worker.topics[0])
            every = sorted(number for share in shares for number in share)
            return len(shares) == count and all(shares) and every == list(range(PARTITIONS))

        await until(shared, seconds, f"{count} {worker.role} workers share the partitions")

    async def lag(self, worker: Worker) -> int:
        return await self.groups.lag(worker.group, worker.topics)

    def _url(self, place: Place) -> str:
        return f"http://127.0.0.1:{self._ports[place]}"


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Return when a condition holds. Raises AssertionError where it does not within the time."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(POLL_SECONDS)


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Pipeline]:
    """Run Kafka, ClickHouse's engine, and one process of each role."""
    async with contextlib.AsyncExitStack() as exits:
        starting = brokers(directory)
        (broker,) = await asyncio.to_thread(starting.__enter__)
        exits.push_async_callback(asyncio.to_thread, starting.__exit__, None, None, None)
        clickhouse_port = free_port()
        stack = Stack(
            directory,
            {
                "OPENBAT_DATA_DIR": str(directory),
                "OPENBAT_KAFKA_BOOTSTRAP": broker.bootstrap,
                "OPENBAT_CLICKHOUSE_URL": f"http://127.0.0.1:{clickhouse_port}",
                "OPENBAT_CLICKHOUSE_PORT": str(clickhouse_port),
                "OPENBAT_REPLICATION_FACTOR": "1",
                "OPENBAT_PARTITIONS": str(PARTITIONS),
            },
        )
        ports = {("gateway", number): free_port() for number in range(MOST)}
        own = {place: {"OPENBAT_PORT": str(port)} for place, port in ports.items()}
        processes = exits.enter_context(fleet(stack.environment, own, directory))
        await asyncio.to_thread(processes.start, CURRENT, ("clickhouse-server", 0))
        await asyncio.to_thread(stack.openbat, "migrate")
        groups = await exits.enter_async_context(Groups(broker.connection))
        pipeline = Pipeline(stack, groups, processes, ports)
        for name in CHATBOTS:
            key = new_key()
            await create(broker.connection, name, key)
            pipeline.chatbots.append(Chatbot(name, key))
        await pipeline.start(*((worker.role, 0) for worker in WORKERS), ("gateway", 0))
        found = state.LocalState(
            pipeline.gateways[0],
            stack.environment["OPENBAT_CLICKHOUSE_URL"],
            broker.bootstrap,
            "",
            pipeline.chatbots[0].key,
            processes=[],
        )
        state.write(directory, found)
        yield pipeline
