"""`openbat gateway`: builds what the gateway is made of, and serves it."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from limits.errors import ConfigurationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin import AdminApi
from gateway.admin_registry import Chatbots
from gateway.app import make_app
from gateway.capture import Bounds, CaptureEndpoint
from gateway.connection_bounds import ConnectionBounds
from gateway.errors import unavailable
from gateway.health import KAFKA_AWAY, STARTING, STOPPING
from gateway.limits import RateLimits
from gateway.metrics import GatewayMetrics
from gateway.pace import Pace
from gateway.protocol import make_protocol
from gateway.publisher import Publisher
from gateway.registry import PARTITION, Registry, follow, read_to_end
from gateway.replies import Expected, Replies, read_replies
from gateway.sender import Sender
from openbat import __version__, notify, tracing
from openbat.admin import RegistryChatbots
from openbat.connection import UnreachableError, connection_of
from openbat.first_captures import FirstCaptures
from openbat.gateway_health import GatewayHealth
from openbat.health import address_of, serve
from openbat.kafka import TopicsError, captures_partitions, make_reader, start_producer
from openbat.open_files import raise_limit
from openbat.patience import until_it_answers
from openbat.settings import Settings, SettingsError
from schemas import sizes, topics

if TYPE_CHECKING:
    from gateway.tracing import CaptureTracer

log = structlog.get_logger()

READY_TIMEOUT_SECONDS = 2.0
CONNECT_SECONDS = 3.0
"""How long a gateway may connect before it answers, with 503 where it has not succeeded."""
SHUTDOWN_SECONDS = 10
LONGEST_WAIT_AT_SHUTDOWN_SECONDS = 5.0
"""After it, who still waits for an exact count is given the provisional one."""
KEEP_ALIVE_SECONDS = 65
"""Longer than a load balancer's usual 60: who closes an idle connection first must be the client,
or a capture may be sent into a closing one."""

FILES_BESIDE_CONNECTIONS = 256
MAX_HEADERS = 256
MAX_PIPELINED = 100
LARGEST_FRAMING = 8
"""A chunk of one byte takes six bytes, and headers may follow the last one."""


class Gateway:
    """What serves captures once Kafka answers and the registry is read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection = connection_of(settings)
        try:
            self._limits = RateLimits(settings.rate_limit_storage, settings.default_rate_limit)
        except (ConfigurationError, ImportError) as error:
            raise SettingsError(
                f"OPENBAT_RATE_LIMIT_STORAGE: {error} "
                "For Redis: pip install 'openbat-capture[redis]'"
            ) from None
        self._tracing = tracing.start("gateway")
        self.metrics = GatewayMetrics()
        self._endpoint: CaptureEndpoint | None = None
        self._registry_reader: AIOKafkaConsumer | None = None
        self._replies: Replies | None = None
        self._chatbots: Chatbots | None = None
        self.admin = AdminApi(settings.admin_key, self._known_chatbots)
        self._exits = contextlib.AsyncExitStack()
        self._is_stopping = False
        self.address: str | None = None
        self.health = GatewayHealth(self.unready)

    async def capture(self, request: Request) -> Response:
        if self._endpoint is None:
            raise unavailable("starting", "The gateway is starting: send it again.")
        return await self._endpoint.post(request)

    def _known_chatbots(self) -> Chatbots:
        if self._chatbots is None:
            raise unavailable("starting", "The gateway is starting: send it again.")
        return self._chatbots

    async def unready(self) -> list[str]:
        """Return why captures are not taken, in sentences; nothing where they are."""
        if self._is_stopping:
            return [STOPPING]
        if self._endpoint is None or self._registry_reader is None:
            return [STARTING]
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                await self._registry_reader.end_offsets([PARTITION])
        except (KafkaError, TimeoutError):
            return [KAFKA_AWAY]
        return []

    def turn_unready(self) -> None:
        """Have load balancers send nothing more; what comes all the same is served."""
        log.info("stopping")
        self._is_stopping = True
        self.metrics.ready.set(0)

    def give_up_waiting(self) -> None:
        """Have captures that still wait for their exact count answered without it."""
        if self._replies is not None:
            self._replies.give_up()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self.health.loop = asyncio.get_running_loop()
        connecting = asyncio.create_task(_or_exit(self._connect_when_possible()))
        # No connection is accepted before this yields. One that waits is better off than one that
        # is refused, and others may share the socket.
        await asyncio.wait({connecting}, timeout=CONNECT_SECONDS)
        yield
        connecting.cancel()
        await self._exits.aclose()
        if self._tracing is not None:
            self._tracing.close()
        log.info("stopped")

    async def _connect_when_possible(self) -> None:
        await until_it_answers(
            "Kafka", (KafkaError, TopicsError, UnreachableError), self._connect_once
        )
        notify.ready()
        metrics_at = address_of(self._settings.metrics_host, self._settings.metrics_port)
        log.info("ready", version=__version__, address=self.address, metrics=metrics_at)

    async def _connect_once(self) -> None:
        async with contextlib.AsyncExitStack() as exits:
            await self._connect(exits)
            self._exits = exits.pop_all()

    async def _connect(self, exits: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        connection = self._connection
        partitions = await captures_partitions(connection)

        registry = Registry()
        registry_reader = make_reader(connection, "read_committed")
        exits.push_async_callback(registry_reader.stop)
        await registry_reader.start()
        await read_to_end(registry_reader, registry)

        pace = Pace(
            settings.linger_milliseconds / 1000, settings.longest_linger_milliseconds / 1000
        )
        replies = Replies(
            settings.reply_timeout_seconds, settings.max_wait_seconds, pace, self.metrics
        )
        reply_partition = random.randrange(topics.REPLY_PARTITIONS)  # noqa: S311 - spreads load
        replies_reader = make_reader(connection)
        exits.push_async_callback(replies_reader.stop)
        await replies_reader.start()
        own = TopicPartition(topics.REPLIES, reply_partition)
        replies_reader.assign([own])
        await replies_reader.seek_to_end(own)
        # Only from this position on is no reply missed.
        await replies_reader.position(own)

        sender = Sender(
            lambda: start_producer(connection, sizes.CAPTURES_RECORD),
            generation=lambda: registry.generation,
            reply_partition=reply_partition,
            stop_seconds=settings.produce_timeout_seconds,
        )
        publisher: Publisher[Expected] = Publisher(
            sender,
            replies.expect,
            partitions=partitions,
            pace=pace,
            timeout_seconds=settings.produce_timeout_seconds,
            metrics=self.metrics,
        )
        exits.push_async_callback(publisher.close)
        await publisher.start()

        for reader in (
            read_replies(replies_reader, replies.receive, pace),
            follow(registry_reader, registry),
        ):
            exits.callback(asyncio.create_task(_or_exit(reader)).cancel)
        self._registry_reader = registry_reader
        self._replies = replies
        writing = asyncio.Lock()
        self._chatbots = RegistryChatbots(connection, registry, settings.data_dir, writing)
        first_captures = FirstCaptures(connection, registry, writing)
        exits.push_async_callback(first_captures.close)
        first_captures.start()
        self._endpoint = CaptureEndpoint(
            registry,
            self._limits,
            publisher,
            Bounds(settings.max_body_bytes, settings.max_wait_seconds),
            self.metrics,
            self._tracer(),
            first_captures.note,
        )
        _show_state(self.metrics, publisher, replies, pace)

    def _tracer(self) -> "CaptureTracer | None":
        if self._tracing is None:
            return None
        from gateway.tracing import CaptureTracer

        return CaptureTracer(self._tracing.tracer, self._settings.trace_ratio)


def _show_state(
    metrics: GatewayMetrics, publisher: Publisher[Expected], replies: Replies, pace: Pace
) -> None:
    """Have the gauges read what the parts know, each time that somebody asks."""
    metrics.ready.set(1)
    metrics.pending_captures.set_function(lambda: publisher.pending_captures)
    metrics.pending_bytes.set_function(lambda: publisher.pending_bytes)
    metrics.log_late.set_function(lambda: publisher.late_partitions)
    metrics.replies_late.set_function(lambda: replies.late_partitions)
    metrics.replies_awaited.set_function(lambda: replies.awaited)
    metrics.linger.set_function(lambda: pace.linger_seconds)


class _Server(uvicorn.Server):
    """Ends in steps: unready first, unless it is told to stop once more; then it drains.

    Long waits end in time for their answers to be given.
    """

    def __init__(self, config: uvicorn.Config, gateway: Gateway, unready_seconds: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._unready_seconds = unready_seconds
        self._unready: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._unready is None or self._unready.done():
            super().handle_exit(sig, frame)
        else:  # uvicorn would not drain after a second SIGINT
            self._unready.get_loop().call_soon_threadsafe(self._unready.cancel)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.turn_unready()
        self._unready = asyncio.create_task(asyncio.sleep(self._unready_seconds))
        await asyncio.wait({self._unready})
        asyncio.get_running_loop().call_later(
            LONGEST_WAIT_AT_SHUTDOWN_SECONDS, self._gateway.give_up_waiting
        )
        await super().shutdown(sockets)


async def _or_exit(task: Coroutine[Any, Any, None]) -> None:
    """Run a task that the gateway can't be without: where it fails, the process ends."""
    try:
        await task
    except Exception as error:  # noqa: BLE001 - whatever it is, the process is of no use
        log.critical("gateway ends; it must be started again", error=repr(error))
        os._exit(70)


def connection_bounds(settings: Settings) -> ConnectionBounds:
    """Return what a connection may take; as many are taken as this process may have open."""
    return ConnectionBounds(
        connections=min(settings.max_connections, raise_limit() - FILES_BESIDE_CONNECTIONS),
        head_bytes=sizes.HEAD,
        headers=MAX_HEADERS,
        pipelined=MAX_PIPELINED,
        body_bytes=settings.max_body_bytes * LARGEST_FRAMING,
        timeout_seconds=settings.body_timeout_seconds,
    )


def server_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    """Return how an app is served."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=make_protocol(connection_bounds(settings)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def run_gateway(settings: Settings, fd: int | None) -> None:
    """Serve until SIGTERM; then answer what is under way.

    Args:
        settings: of this process.
        fd: an inherited listening socket, None to bind host and port.

    Raises:
        OSError: the port is in use.

    """
    gateway = Gateway(settings)
    if settings.metrics_port:
        serve(
            gateway.metrics.registry,
            settings.metrics_host,
            settings.metrics_port,
            gateway.health.paths(),
        )
    if fd is not None:
        listener = socket.socket(fileno=fd)
    else:
        listener = socket.create_server((settings.host, settings.port), backlog=2048)
    gateway.address = address_of(*listener.getsockname()[:2])
    app = make_app(
        gateway.capture,
        gateway.unready,
        gateway.lifespan,
        __version__,
        gateway.metrics,
        gateway.admin.routes(),
    )
    server = _Server(server_config(app, settings), gateway, settings.unready_seconds)
    server.run(sockets=[listener])
