"""`openbat worker ...`: builds what a worker is made of, and runs it until SIGTERM."""

import asyncio
import contextlib
import fcntl
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from openbat import __version__, notify, tracing
from openbat.connection import Connection, UnreachableError, connection_of
from openbat.health import address_of, serve
from openbat.kafka import TopicsError, captures_partitions, start_producer
from openbat.metrics import InsertMetrics, Metrics
from openbat.patience import until_it_answers
from openbat.settings import Settings, SettingsError
from openbat.tracing import Tracing
from openbat.worker_health import WorkerHealth
from openbat.worker_metrics import WorkerCollector
from schemas import sizes, topics
from streams.app import WorkerApp, add_agent, exit_now, make_app, run
from streams.clickhouse import ClickHouseAgent
from streams.conversations import ConversationsAgent
from streams.dead_letters import DeadLetters
from streams.entries import replay_entry
from streams.lanes import Lanes
from streams.progress import Progress
from streams.sweep import Sweeper
from streams.table import WorkerTable
from streams.window import Windows

if TYPE_CHECKING:
    from streams.tracing import StreamTracer

log = structlog.get_logger()


class Parts(NamedTuple):
    """What every worker has. `identity` is its own, and lasts as long as its directory.

    `tracing` is None where nothing is traced.
    """

    app: WorkerApp
    settings: Settings
    connection: Connection
    identity: str
    producer: AIOKafkaProducer
    dead_letters: DeadLetters
    metrics: Metrics
    health: WorkerHealth
    tracing: Tracing | None


Build = Callable[[Parts], Awaitable[None]]
"""Adds to an app what its role is made of."""

MAX_SLOTS = 64
STOP_SECONDS = 2.0
COLLECT_SECONDS = 0.2
"""How long records collect before they are read, where nobody waits for an answer to them."""
GULPS_IN_FLIGHT = 16
"""Per partition; a gulp is what a lane hands on at once, 1 MiB as a rule."""


@contextlib.contextmanager
def slot(data_dir: Path, role: str) -> Iterator[tuple[Path, str]]:
    """Lock the first free slot of a role: a directory of its own, and a lasting identity.

    The identity is the worker's in its consumer group. It is drawn once per directory, so that
    neither copies on one machine nor machines share one.

    Raises:
        SettingsError: every slot is taken.

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
    raise SettingsError(
        f"OPENBAT_DATA_DIR: {MAX_SLOTS} processes use {data_dir / 'workers'} already, and there is "
        "room for no more: stop some of them, or name another directory for this one"
    )


def credentials(connection: Connection) -> CredentialsT | None:
    """Return Faust's credentials for a connection, None where Kafka asks for none."""
    if connection.sasl is not None:
        mechanism, user, password = connection.sasl
        return SASLCredentials(
            username=user, password=password, ssl_context=connection.tls, mechanism=mechanism
        )
    return SSLCredentials(connection.tls) if connection.tls is not None else None


def run_conversations(settings: Settings) -> None:
    uvloop.run(run_worker("conversations", topics.CONVERSATIONS_GROUP, settings, _conversations))


def run_clickhouse(settings: Settings) -> None:
    uvloop.run(
        run_worker("clickhouse", topics.CLICKHOUSE_GROUP, settings, _clickhouse, ".analyses")
    )


async def run_worker(
    role: str, group: str, settings: Settings, build: Build, subscription: str = ""
) -> None:
    """Run a worker of a role until it is told to stop.

    Args:
        role: whose slot in the data directory it takes.
        group: the consumer group.
        settings: of the process.
        build: adds what the role does.
        subscription: changes whenever the role reads other topics than in the release before. Kafka
            gives a static member that comes back the assignment that it had, whatever it subscribes
            to now: under the same name it would read the topics of the release before alone, until
            something else made the group rebalance.

    Raises:
        SettingsError: it can't start so.

    """
    _on_stop_signal(_end_now)  # until there is something to drain
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    state = WorkerCollector(loop)
    health = WorkerHealth(loop, state.look)
    metrics.registry.register(state)
    if settings.metrics_port:
        serve(metrics.registry, settings.metrics_host, settings.metrics_port, health.paths())
    traced = tracing.start(role)
    connection = connection_of(settings)
    with slot(settings.data_dir, role) as (directory, identity):
        partitions = await until_it_answers(
            "Kafka",
            (KafkaError, TopicsError, UnreachableError),
            lambda: captures_partitions(connection),
        )
        producer = await until_it_answers(
            "Kafka", (KafkaError,), lambda: start_producer(connection, sizes.CHANGELOG_BATCH)
        )
        try:
            app = make_app(
                group,
                connection.bootstrap,
                partitions,
                directory,
                identity + subscription,
                settings.standby_replicas,
                credentials(connection),
            )
        except RuntimeError as error:  # how Faust was installed: its text is a sentence already
            raise SettingsError(str(error)) from error
        dead_letters = DeadLetters(producer, metrics.dead_letter)
        await build(
            Parts(
                app,
                settings,
                connection,
                identity,
                producer,
                dead_letters,
                metrics,
                health,
                traced,
            )
        )
        state.progress = Progress(app)
        health.starting = None
        stop = asyncio.Event()

        def on_stop() -> None:
            log.info("stopping")
            health.stopping = True
            stop.set()

        _on_stop_signal(on_stop)

        def on_ready() -> None:
            notify.ready()
            metrics_at = address_of(settings.metrics_host, settings.metrics_port)
            log.info("ready", version=__version__, metrics=metrics_at)

        await run(app, stop, on_ready)
        # All of it was acknowledged: there is nothing left to wait for where Kafka is away.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), STOP_SECONDS)
        if traced is not None:
            traced.close()
        log.info("stopped")


def _end_now() -> None:
    log.info("stopped")
    os._exit(0)


def _on_stop_signal(callback: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, callback)


def _stream_tracer(traced: Tracing | None) -> "StreamTracer | None":
    if traced is None:
        return None
    from streams.tracing import StreamTracer

    return StreamTracer(traced.tracer)


async def _conversations(parts: Parts) -> None:
    app = parts.app
    table = WorkerTable(
        app,
        exit_now,
        parts.settings.table_cache_mebibytes * sizes.MIB,
        replay_entry,
        name=topics.CONVERSATIONS_TABLE,
        partitions=app.conf.topic_partitions,
        beacon=app.tables.beacon,
    )
    app.tables.add(table)
    windows = Windows(GULPS_IN_FLIGHT, exit_now)
    sweeper = Sweeper(table)
    agent = ConversationsAgent(
        table, parts.producer, parts.dead_letters, windows, sweeper, _stream_tracer(parts.tracing)
    )
    lanes = Lanes(agent.process, exit_now)
    add_agent(app, topics.CAPTURES, lanes.put)

    async def drained() -> None:
        await lanes.drained()
        await windows.drained()
        await windows.close()

    app.drained = drained
    app.on_given_up += [table.forget_positions, sweeper.start_over]


async def _clickhouse(parts: Parts) -> None:
    app = parts.app
    # The other worker starts half a second of processor time sooner without ClickHouse's client.
    from openbat.clickhouse_writer import STARTING, clickhouse_reasons, connect_writer
    from sinks.analysis_rows import ANALYSIS_TABLE, AnalysisBatch
    from sinks.rows import CONVERSATION_TABLE, MESSAGE_TABLE, RowBatch

    tables = MESSAGE_TABLE, CONVERSATION_TABLE, ANALYSIS_TABLE
    inserts = InsertMetrics(parts.metrics.registry, tables)
    parts.health.starting = STARTING
    writer, ping = await connect_writer(parts.settings, inserts)
    parts.health.checks.append(lambda: clickhouse_reasons(inserts, ping))
    messages = ClickHouseAgent[RowBatch](
        topics.MESSAGES, RowBatch, writer, parts.dead_letters, _stream_tracer(parts.tracing)
    )
    analyses = ClickHouseAgent[AnalysisBatch](
        topics.ANALYSES, AnalysisBatch, writer, parts.dead_letters
    )
    add_agent(app, topics.MESSAGES, messages.process)
    add_agent(app, topics.ANALYSES, analyses.process)
    app.collect_seconds = COLLECT_SECONDS
    app.add_future(messages.run())
    app.add_future(analyses.run())

    async def drained() -> None:
        await messages.drained()
        await analyses.drained()

    app.drained = drained
