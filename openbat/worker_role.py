"""`openbat worker ...`: builds what a worker is made of, and runs it until SIGTERM."""

import asyncio
import contextlib
import fcntl
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import structlog
import uvloop

from openbat import notify
from openbat.kafka import captures_partitions, start_producer
from openbat.settings import Settings
from schemas import sizes, topics
from sinks.writer import ClickHouseWriter
from streams.app import WorkerApp, add_agent, exit_now, make_app, run
from streams.clickhouse import ClickHouseAgent
from streams.conversations import ConversationsAgent
from streams.dead_letters import DeadLetters
from streams.lanes import Lanes
from streams.sweep import Sweeper
from streams.table import ConversationsTable
from streams.window import Windows

log = structlog.get_logger()

MAX_SLOTS = 64
STOP_SECONDS = 2.0
GULPS_IN_FLIGHT = 16
"""Per partition; a gulp is what a lane hands on at once, 1 MiB as a rule."""


@contextlib.contextmanager
def slot(data_dir: Path, role: str) -> Iterator[tuple[Path, str]]:
    """Lock the first free slot of a role: a directory of its own, and a lasting identity.

    The identity is the worker's in its consumer group. It is drawn once per directory, so that
    neither copies on one machine nor machines share one.

    Raises:
        RuntimeError: every slot is taken.

    """
    for number in range(MAX_SLOTS):
        directory = data_dir / "workers" / f"{role}-{number}"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            lock.seek(0)
            identity = lock.read().strip()
            if not identity:
                identity = f"{role}-{uuid.uuid4()}"
                lock.write(identity)
                lock.flush()
            yield directory, identity
            return
    raise RuntimeError(f"all {MAX_SLOTS} slots under {data_dir / 'workers'} are taken")


def run_conversations(settings: Settings) -> None:
    uvloop.run(_run("conversations", topics.CONVERSATIONS_GROUP, settings, _conversations))


def run_clickhouse(settings: Settings) -> None:
    uvloop.run(_run("clickhouse", topics.CLICKHOUSE_GROUP, settings, _clickhouse))


async def _run(role: str, group: str, settings: Settings, build: Any) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bootstrap = settings.kafka_bootstrap
    partitions = await captures_partitions(bootstrap)
    with slot(settings.data_dir, role) as (directory, identity):
        producer = await start_producer(bootstrap, sizes.CHANGELOG_BATCH)
        app = make_app(group, bootstrap, partitions, directory, identity, settings.standby_replicas)
        build(app, settings, producer, partitions)

        def on_ready() -> None:
            notify.ready()
            log.info("ready")

        await run(app, stop, on_ready)
        # All of it was acknowledged: there is nothing left to wait for where Kafka is away.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), STOP_SECONDS)


def _conversations(app: WorkerApp, settings: Settings, producer: Any, partitions: int) -> None:
    table = ConversationsTable(
        app,
        exit_now,
        settings.table_cache_mebibytes * sizes.MIB,
        name=topics.CONVERSATIONS_TABLE,
        partitions=partitions,
        beacon=app.tables.beacon,
    )
    app.tables.add(table)
    windows = Windows(GULPS_IN_FLIGHT, exit_now)
    sweeper = Sweeper(table)
    agent = ConversationsAgent(table, producer, DeadLetters(producer), windows, sweeper)
    lanes = Lanes(agent.process, exit_now)
    add_agent(app, topics.CAPTURES, lanes.put)

    async def drained() -> None:
        await lanes.drained()
        await windows.drained()
        await windows.close()

    app.drained = drained
    app.on_given_up += [table.forget_positions, sweeper.start_over]


def _clickhouse(app: WorkerApp, settings: Settings, producer: Any, _partitions: int) -> None:
    client = clickhouse_connect.get_client(
        dsn=settings.clickhouse_url, autogenerate_session_id=False
    )
    agent = ClickHouseAgent(ClickHouseWriter(client), DeadLetters(producer))
    add_agent(app, topics.MESSAGES, agent.process)
    app.add_future(agent.run())
    app.drained = agent.drained
