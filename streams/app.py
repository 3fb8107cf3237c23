"""A worker: one Faust app with one agent, started, watched and drained by us.

Faust runs the consumer group, the table's recovery and the commits. It is given no way to survive
a fault on its own terms: any exception of an agent ends the process, because Faust would ack the
record whose agent raised, or restart the agent in a state that nobody knows.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import faust
import faust.streams
import structlog
from faust.types.auth import CredentialsT
from mode.utils.queues import FlowControlEvent

from schemas import sizes
from streams.consumer import Positions, RewindingTransport
from streams.continuity import Continuity
from streams.lanes import Received
from streams.recovery import RestartingTableManager

log = structlog.get_logger()

SESSION_SECONDS = 10.0
REQUEST_SECONDS = 15.0
"""How long a request to a broker may take; after it the connection is given up, as open but dead.
Longer than a session, which a request to join the group waits for at most."""

FETCH_BYTES = sizes.MIB
"""Per partition and fetch; a larger record comes alone. What all partitions bring at once must get
through a slow network within REQUEST_SECONDS, or nothing ever does."""

MAX_WAIT_SECONDS = 7 * 86400.0
"""How long an agent may take no record: ClickHouse may be away for as long as records are kept."""
RECORDS_BUFFERED = 64
"""Per worker, between Kafka and its agent; a record is 256 KiB at most as a rule."""


def exit_now(error: BaseException) -> None:
    """End the process at once, so that nothing more is acked or committed."""
    log.critical("worker ends; it must be started again", error=repr(error))
    os._exit(70)


class _FlowControl(FlowControlEvent):  # type: ignore[misc]
    """Drops what is queued only when flow was suspended.

    mode's drops it at every resume. Faust resumes once more at the end of a recovery, after it
    has already begun to fetch: those records would be dropped, and later committed past.
    """

    def resume(self) -> None:
        if not self.is_active():
            super().resume()


class WorkerApp(faust.App):  # type: ignore[misc]
    """A Faust app that gives its partitions up only when all it started is done.

    Attributes:
        drained: returns when all that was read is done.
        collect_seconds: how long records collect before they are read, where they are few. A fetch
            wakes two threads and the broker, which costs as much as some dozens of captures.

    """

    drained: Callable[[], Awaitable[None]]
    collect_seconds: float = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_giving_up: list[Callable[[], None]] = []
        self.settled: Callable[[], Awaitable[None]] = _nothing
        self.on_given_up: list[Callable[[], None]] = []
        self.on_seek: list[Callable[[Positions], None]] = []

    def _new_transport(self) -> RewindingTransport:
        return RewindingTransport(self.conf.broker_consumer, self)

    @cached_property
    def flow_control(self) -> FlowControlEvent:
        return _FlowControl(loop=self.loop)

    async def _on_partitions_revoked(self, revoked: set[Any]) -> None:
        for hurry in self.on_giving_up:
            hurry()
        try:
            async with asyncio.timeout(SESSION_SECONDS / 2):
                await super()._on_partitions_revoked(revoked)
                await self.settled()
        except TimeoutError as error:
            exit_now(error)
        for forget in self.on_given_up:
            forget()


async def _nothing() -> None:
    """Wait for nothing: what is acked is all that there is."""


def make_app(
    group: str,
    bootstrap: str,
    partitions: int,
    directory: Path,
    instance_id: str,
    standby_replicas: int = 0,
    credentials: CredentialsT | None = None,
) -> WorkerApp:
    """Return the app of a worker.

    Args:
        group: the consumer group.
        bootstrap: Kafka's `host:port,host:port`.
        partitions: of the topics it reads, and so of its table.
        directory: this worker's own; its store lives there.
        instance_id: this worker's identity in the group, as stable as the directory.
        standby_replicas: how many other workers keep a copy of each partition of its table.
        credentials: what the brokers ask for, None for nothing.

    """
    if faust.streams._CStreamIterator is None:
        raise RuntimeError(
            "faust-streaming was installed without its compiled streams, which would ack records "
            "that it skips: install it from a wheel, or with a C compiler at hand"
        )
    return WorkerApp(
        group,
        broker=[f"kafka://{address.strip()}" for address in bootstrap.split(",")],
        broker_credentials=credentials,
        datadir=directory,
        store="rocksdb://",
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=True,
        TableManager=RestartingTableManager,
        table_standby_replicas=standby_replicas,
        stream_buffer_maxsize=RECORDS_BUFFERED,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=instance_id,
        consumer_max_fetch_size=FETCH_BYTES,
        broker_session_timeout=SESSION_SECONDS,
        broker_heartbeat_interval=SESSION_SECONDS / 4,
        broker_rebalance_timeout=SESSION_SECONDS,
        broker_request_timeout=REQUEST_SECONDS,
        broker_max_poll_interval=MAX_WAIT_SECONDS,
        broker_commit_interval=1.0,
        broker_max_poll_records=500,
    )


def add_agent(
    app: WorkerApp, topic: str, process: Callable[[int, Received], Awaitable[None]]
) -> None:
    """Have the app hand every record of a topic to `process`, in order.

    `process` acks by calling what it is given; it returns as soon as it can take the next record.
    """
    source = app.topic(
        topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    continuity = Continuity(topic)

    async def agent(stream: Any) -> None:
        try:
            async for event in stream.noack().events():
                message = event.message
                partition, offset = message.partition, message.offset
                continuity.check(partition, offset)
                await process(
                    partition,
                    Received(offset, event.value or b"", event.ack, message.headers or ()),
                )
        except Exception as error:  # noqa: BLE001 - none may leave the agent
            exit_now(error)

    app.agent(source, name=topic)(agent)

    def start(positions: Positions) -> None:
        for tp, offset in positions.items():
            if tp.topic == topic:
                continuity.start(tp.partition, offset)

    app.on_seek.append(start)


async def run(app: WorkerApp, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
    """Run the app until `stop` is set; drain it then.

    Args:
        app: the worker's.
        stop: set by whoever wants it to end.
        on_ready: called when it has joined its group and its table is recovered.

    """
    stopping = asyncio.create_task(stop.wait())
    working = asyncio.create_task(_work(app, on_ready))
    await asyncio.wait({stopping, working}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        exit_now(working.exception() or app.crash_reason)
    working.cancel()
    app.consumer.stop_flow()
    app.flow_control.suspend()
    app.flow_control.clear()
    try:
        async with asyncio.timeout(SESSION_SECONDS):
            await app.drained()
            await app.consumer.commit()
            await app.stop()
    except Exception as error:  # noqa: BLE001 - Kafka may be away, or the app not started yet
        log.warning(
            "stopped in the middle; what is not acked will be read again", error=repr(error)
        )
        os._exit(0)


async def _work(app: WorkerApp, on_ready: Callable[[], None]) -> None:
    """Start the app, say when it is ready, and return when it has crashed."""
    await app.start()
    ready = copied = False
    # Faust has no events for these.
    while app.crash_reason is None:
        # With more workers than partitions, some have none.
        if not ready and (app.tables.actives_ready or app.unassigned):
            ready = True
            on_ready()
        if ready and copied != _has_copied(app):
            copied = not copied
            log.info("standby copies are up to date" if copied else "standby copies are behind")
        await asyncio.sleep(0.05)


def _has_copied(app: WorkerApp) -> bool:
    """Whether this worker's standby copies hold all that was there when it began to follow.

    Faust has an event for it, and sets it too early.
    """
    recovery = app.tables.recovery
    ends, copied = recovery.standby_highwaters, recovery.standby_offsets
    return bool(recovery.standby_tps) and all(
        tp in ends and copied[tp] is not None and copied[tp] >= ends[tp]
        for tp in recovery.standby_tps
    )
