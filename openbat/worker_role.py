"""`openbat worker ...`: builds what a worker is made of, and runs it until SIGTERM."""

import asyncio
import contextlib
import fcntl
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from aiokafka.errors import KafkaError

from openbat import notify
from openbat.kafka import TopicsError, captures_partitions, start_producer
from openbat.patience import until_it_answers
from openbat.settings import Settings
from schemas import sizes, topics
from streams.app import WorkerApp, add_agent, exit_now, make_app, run
from streams.clickhouse import ClickHouseAgent
from streams.conversations import ConversationsAgent
from streams.dead_letters import DeadLetters
from streams.lanes import Lanes
from streams.table import ConversationsTable
from streams.window import Windows

if TYPE_CHECKING:
    from sinks.writer import ClickHouseWriter

log = structlog.get_logger()

MAX_SLOTS = 64
STOP_SECONDS = 2.0
CONNECT_SECONDS = 10
INSERT_SECONDS = 30
"""How long ClickHouse may say nothing to an insert. After it the connection is given up, as open
but dead, and the insert is repeated: one that had arrived after all is absorbed by the table."""
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
    _on_stop_signal(os._exit, 0)  # until there is something to drain
    bootstrap = settings.kafka_bootstrap
    partitions = await until_it_answers(
        "Kafka", (KafkaError, TopicsError), lambda: captures_partitions(bootstrap)
    )
    with slot(settings.data_dir, role) as (directory, identity):
        producer = await until_it_answers(
            "Kafka", (KafkaError,), lambda: start_producer(bootstrap, sizes.CHANGELOG_BATCH)
        )
        app = make_app(group, bootstrap, partitions, directory, identity)
        await build(app, settings, producer, partitions)
        stop = asyncio.Event()
        _on_stop_signal(stop.set)

        def on_ready() -> None:
            notify.ready()
            log.info("ready")

        await run(app, stop, on_ready)
        # All of it was acknowledged: there is nothing left to wait for where Kafka is away.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), STOP_SECONDS)


def _on_stop_signal(callback: Callable[..., object], *arguments: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, callback, *arguments)


async def _conversations(
    app: WorkerApp, _settings: Settings, producer: Any, partitions: int
) -> None:
    table = ConversationsTable(
        app, name=topics.CONVERSATIONS_TABLE, partitions=partitions, beacon=app.tables.beacon
    )
    app.tables.add(table)
    windows = Windows(GULPS_IN_FLIGHT, exit_now)
    agent = ConversationsAgent(table, producer, DeadLetters(producer), windows)
    lanes = Lanes(agent.process, exit_now)
    add_agent(app, topics.CAPTURES, lanes.put)

    async def drained() -> None:
        await lanes.drained()
        await windows.drained()
        await windows.close()

    app.drained = drained
    app.on_given_up.append(table.forget_positions)


async def _clickhouse(app: WorkerApp, settings: Settings, producer: Any, _partitions: int) -> None:
    # Half a second of a start that the other worker need not spend.
    from clickhouse_connect.driver.exceptions import ClickHouseError

    writer = await until_it_answers(
        "ClickHouse",
        (ClickHouseError,),
        lambda: asyncio.to_thread(_connect_writer, settings.clickhouse_url),
    )
    agent = ClickHouseAgent(writer, DeadLetters(producer))
    add_agent(app, topics.MESSAGES, agent.process)
    app.add_future(agent.run())
    app.drained = agent.drained


def _connect_writer(url: str) -> "ClickHouseWriter":
    """Connect to ClickHouse. Raises ClickHouseError where it is away or lacks the tables."""
    import clickhouse_connect

    from sinks.writer import ClickHouseWriter

    client = clickhouse_connect.get_client(
        dsn=url,
        autogenerate_session_id=False,
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=INSERT_SECONDS,
    )
    try:
        return ClickHouseWriter(client)
    except BaseException:
        client.close()
        raise
