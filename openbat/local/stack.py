"""`openbat local`: the whole pipeline on one machine, from Python packages alone."""

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from rich.console import Console

from openbat import chatbots
from openbat.clickhouse import clickhouse_client
from openbat.connection import Connection
from openbat.kafka import migrate_topics, read_registry
from openbat.local import jars, java, kafka, state
from openbat.local.metered import metered, metrics_url
from openbat.local.probe import wait_exact
from openbat.local.supervisor import Spec, StartError, Supervised, Supervisor
from openbat.settings import PREFIX, UNSECURED, Settings
from schemas.chatbots import DEMO, Chatbot
from sinks.migrate import migrate

HOST = "127.0.0.1"
START_SECONDS = 120.0
_BACKLOG = 2048


class LocalError(Exception):
    """Raised when the local stack can't run; says what to do."""


def run_local(settings: Settings) -> None:
    """Run the stack until SIGINT or SIGTERM. Raises LocalError where it can't run."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with _only_one(settings.data_dir), contextlib.ExitStack() as exits:
        state.path(settings.data_dir).unlink(missing_ok=True)
        stack = Stack(settings, console, exits)
        starting = asyncio.create_task(stack.start())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        finally:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await starting
            console.print("Stopping.")
            await stack.stop()


class Stack:
    """The processes, in the order in which they depend on each other."""

    def __init__(self, settings: Settings, console: Console, exits: contextlib.ExitStack) -> None:
        self._settings = settings
        self._console = console
        self._state: state.LocalState | None = None
        self._supervisor = Supervisor(settings.data_dir / "logs", self._write_state)
        self._gateways = self._listen(exits, settings.port, "OPENBAT_PORT")
        self._clickhouse = self._listen(exits, settings.clickhouse_port, "OPENBAT_CLICKHOUSE_PORT")
        self._kafka_port = _free_port(settings.kafka_port, "OPENBAT_KAFKA_PORT")

    async def start(self) -> None:
        """Start everything; return when a capture is answered exactly."""
        settings = self._settings
        say = self._console.print
        gateway_url = f"http://{HOST}:{self._gateways.getsockname()[1]}"
        clickhouse_url = f"http://{HOST}:{self._clickhouse.getsockname()[1]}"
        connection = Connection(f"{HOST}:{self._kafka_port}")
        environment = {
            "OPENBAT_DATA_DIR": str(settings.data_dir.absolute()),
            **{PREFIX + name.upper(): "" for name in UNSECURED},
            "OPENBAT_KAFKA_BOOTSTRAP": connection.bootstrap,
            "OPENBAT_CLICKHOUSE_URL": clickhouse_url,
            # Nobody stands before them.
            "OPENBAT_UNREADY_SECONDS": "0",
        }
        found = await asyncio.to_thread(jars.fetch, settings.jars_dir or settings.data_dir / "jars")
        say("Starting Kafka and ClickHouse.")
        self._supervisor.start(self._kafka_spec(found))
        clickhouse = self._supervisor.start(
            _spec("clickhouse-server", ["local-clickhouse"], environment, [self._clickhouse])
        )
        await kafka.wait_ready(connection.bootstrap, START_SECONDS)
        await migrate_topics(connection, settings.partitions, replication_factor=1)
        await self._supervisor.wait_ready([clickhouse], START_SECONDS)
        await asyncio.to_thread(_migrate_clickhouse, clickhouse_url)
        demo, key = await _demo(connection, settings.data_dir / "demo.key")
        say("Starting the workers and the gateway.")
        ours = [
            self._start_ours("clickhouse", ["worker", "clickhouse"], environment)
            for _ in range(settings.clickhouse_workers)
        ]
        ours += [
            self._start_ours("conversations", ["worker", "conversations"], environment)
            for _ in range(settings.conversations_workers)
        ]
        ours += [
            self._start_ours("analysis", ["worker", "analysis"], environment)
            for _ in range(settings.analysis_workers)
        ]
        ours += [
            self._start_ours("gateway", ["gateway"], environment, [self._gateways])
            for _ in range(settings.gateways)
        ]
        await self._supervisor.wait_ready(ours, START_SECONDS)
        try:
            await wait_exact(connection, START_SECONDS)
        except TimeoutError:
            raise StartError(
                f"the conversations workers do not answer: see {settings.data_dir / 'logs'}"
            ) from None
        await _wait_ready(gateway_url)
        self._state = state.LocalState(
            gateway_url, clickhouse_url, connection.bootstrap, demo.id, key, [], os.getpid()
        )
        self._write_state()
        _greet(gateway_url, clickhouse_url, key, settings.data_dir)

    async def stop(self) -> None:
        await self._supervisor.stop()
        state.path(self._settings.data_dir).unlink(missing_ok=True)

    def _write_state(self) -> None:
        if self._state is not None:
            self._state.processes = [
                state.Process(
                    process.spec.role,
                    process.pid,
                    metrics_url(process.spec.environment),
                    process.name,
                )
                for process in self._supervisor.processes
            ]
            state.write(self._settings.data_dir, self._state)

    def _listen(self, exits: contextlib.ExitStack, port: int, variable: str) -> socket.socket:
        """Listen here, for the processes that share or inherit the socket."""
        try:
            return exits.enter_context(socket.create_server((HOST, port), backlog=_BACKLOG))
        except OSError as error:
            raise _port_error(error, port, variable) from None

    def _kafka_spec(self, found: list[Path]) -> Spec:
        data_dir = self._settings.data_dir
        runtime = java.find_java()
        return Spec(
            "kafka",
            kafka.command(data_dir, found, runtime),
            before_start=lambda: kafka.prepare(data_dir, found, runtime, self._kafka_port),
        )

    def _start_ours(
        self,
        role: str,
        arguments: list[str],
        environment: dict[str, str],
        listeners: list[socket.socket] | None = None,
    ) -> Supervised:
        return self._supervisor.start(metered(_spec(role, arguments, environment, listeners)))


def _spec(
    role: str,
    arguments: list[str],
    environment: dict[str, str],
    listeners: list[socket.socket] | None = None,
) -> Spec:
    """Return a process of ours; `listeners` are sockets that it inherits."""
    fds = [listener.fileno() for listener in listeners or []]
    argv = [sys.executable, "-m", "openbat", *arguments]
    argv += [f"--fd={fd}" for fd in fds]
    return Spec(role, argv, environment, fds)


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    with contextlib.ExitStack() as exits:
        try:
            exits.enter_context(state.locked(data_dir))
        except BlockingIOError:
            raise LocalError(
                f"a local stack runs in {data_dir} already: stop it, or set OPENBAT_DATA_DIR"
            ) from None
        yield


def _free_port(port: int, variable: str) -> int:
    try:
        with socket.create_server((HOST, port)) as probe:
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        raise _port_error(error, port, variable) from None


def _port_error(error: OSError, port: int, variable: str) -> LocalError:
    reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
    return LocalError(
        f"port {port} {reason}: set {variable} to another one, or to 0 for a free one"
    )


def _migrate_clickhouse(url: str) -> None:
    client = clickhouse_client(url)
    try:
        migrate(client)
    finally:
        client.close()


async def _demo(connection: Connection, key_file: Path) -> tuple[Chatbot, str]:
    """Return the chatbot `demo` and its key; make both on the first run.

    The key is written before the registry knows it: a kill in between leaves a key that the next
    start makes good. A key that the registry doesn't know is replaced.
    """
    registry = await read_registry(connection)
    known = next((chatbot for chatbot in registry.chatbots() if chatbot.name == DEMO), None)
    key = state.read_text(key_file)
    if known is not None and known.key_sha256 == hashlib.sha256(key.encode()).digest():
        return known, key
    key = key or chatbots.new_key()
    state.write_private(key_file, key.encode() + b"\n")
    if known is None:
        return await chatbots.create(connection, DEMO, key), key
    return await chatbots.update(connection, DEMO, lambda bot: chatbots.with_key(bot, key)), key


async def _wait_ready(gateway_url: str) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(START_SECONDS):
        while True:
            async with http.get(f"{gateway_url}/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.1)


def _greet(gateway_url: str, clickhouse_url: str, key: str, data_dir: Path) -> None:
    Console(highlight=False, soft_wrap=True).print(
        f"""
[bold]openbat is ready.[/bold]  Ctrl-C stops it; what was captured stays in {data_dir}.

Gateway  {gateway_url}
API key  {key}  (chatbot {DEMO}, kept in {data_dir / "demo.key"})

Capture:
  curl {gateway_url}/api/v1/capture -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{{"conversationId": "conv_1", "messages": \\[
      {{"id": "msg_1", "role": "user", "content": "How do I cancel?"}},
      {{"id": "msg_2", "role": "assistant", "content": "In Settings, under Billing."}}]}}'

Read it with SQL:
  curl {clickhouse_url} -d \\
    'SELECT role, content FROM openbat.messages ORDER BY position FORMAT Pretty'
  curl {clickhouse_url} -d \\
    'SELECT kind, label, score FROM openbat.analyses ORDER BY position, kind FORMAT Pretty'
"""  # noqa: S608 - shown to a person
    )
