"""A pipeline whose connections go through proxies, and whose parts can go away."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from openbat.chatbots import create, new_key
from openbat.clickhouse import clickhouse_client
from openbat.kafka import migrate_topics
from openbat.local import kafka, state
from openbat.local.probe import wait_exact
from openbat.local.supervisor import Spec, Supervised, Supervisor
from sinks.migrate import migrate
from tests.brokers import Broker, brokers
from tests.load import Load
from tests.proxy import Proxy
from tests.report import Figure, Report
from tests.stack import OPENBAT, Running, Stack, free_port, wait_until

PARTITIONS = 4
READY_SECONDS = 60.0
ROLES = {
    "gateway": ["gateway"],
    "conversations": ["worker", "conversations"],
    "clickhouse": ["worker", "clickhouse"],
}
TO_CLICKHOUSE = "clickhouse-clickhouse"
"""The link between the ClickHouse worker and ClickHouse; those to Kafka are named by their role."""


class Rig:
    """One broker, ClickHouse's engine, and one process of each role.

    Attributes:
        stack: the way in, and SQL that goes past the proxies.
        broker: Kafka; it stays away when it is killed.
        engine: ClickHouse; so does it.
        links: a proxy per role, between it and Kafka, and the one between the ClickHouse worker
            and ClickHouse.
        roles: the processes; one that ends is started again.
        produce_seconds: after it a gateway must answer with 503.

    """

    def __init__(
        self,
        stack: Stack,
        broker: Broker,
        engine: Running,
        links: dict[str, Proxy],
        roles: dict[str, Supervised],
        produce_seconds: float,
    ) -> None:
        self.stack = stack
        self.broker = broker
        self.engine = engine
        self.links = links
        self.roles = roles
        self.produce_seconds = produce_seconds

    def load(self, name: str, clients: int = 32, pause_seconds: float = 0.1) -> Load:
        return Load(
            self.stack, name, clients=clients, pause_seconds=pause_seconds, partitions=PARTITIONS
        )

    async def rows(self, name: str) -> int:
        """Return how many rows of a load's messages ClickHouse has."""
        query = (
            "SELECT count() AS rows FROM openbat.messages "
            f"WHERE startsWith(external_conversation_id, '{name}-')"
        )
        return int((await asyncio.to_thread(self.stack.sql, query))[0]["rows"])

    @contextlib.asynccontextmanager
    async def table_setting(self, setting: str) -> AsyncIterator[None]:
        """Give the table of messages a setting, `name=value`, for as long as the block lasts."""
        await self._run_sql(f"ALTER TABLE openbat.message_rows MODIFY SETTING {setting}")
        try:
            yield
        finally:
            name = setting.partition("=")[0]
            await self._run_sql(f"ALTER TABLE openbat.message_rows RESET SETTING {name}")

    async def _run_sql(self, statement: str) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.post(self.stack.state["clickhouse_url"], content=statement)
        assert answer.status_code == 200, answer.text

    async def start_broker(self) -> None:
        await asyncio.to_thread(self.broker.start)
        await kafka.wait_ready(self.broker.bootstrap, READY_SECONDS)

    async def start_engine(self) -> None:
        self.engine.start()
        await asyncio.to_thread(_wait_clickhouse, self.stack.state["clickhouse_url"])

    def log_of(self, role: str) -> str:
        return self.roles[role].log_path.read_text()


@contextlib.asynccontextmanager
async def running(data_dir: Path, produce_seconds: float) -> AsyncIterator[Rig]:
    """Run all of it on free ports; it answers exactly when this yields."""
    async with contextlib.AsyncExitStack() as exits:
        links = {name: await exits.enter_async_context(Proxy()) for name in (*ROLES, TO_CLICKHOUSE)}
        starting = brokers(
            data_dir, advertised=lambda _: {role.upper(): links[role].port for role in ROLES}
        )
        (broker,) = await asyncio.to_thread(starting.__enter__)
        exits.push_async_callback(asyncio.to_thread, starting.__exit__, None, None, None)
        for role in ROLES:
            links[role].target = broker.listeners[role.upper()]
        links[TO_CLICKHOUSE].target = free_port()
        clickhouse_url = f"http://127.0.0.1:{links[TO_CLICKHOUSE].target}"
        engine = Running(
            [*OPENBAT, "local-clickhouse"],
            {
                **os.environ,
                "OPENBAT_DATA_DIR": str(data_dir),
                "OPENBAT_CLICKHOUSE_PORT": str(links[TO_CLICKHOUSE].target),
            },
            data_dir / "engine.log",
        )
        engine.start()
        exits.callback(engine.stop)
        await asyncio.to_thread(_wait_clickhouse, clickhouse_url)
        await asyncio.to_thread(_migrate, clickhouse_url)
        await migrate_topics(broker.connection, PARTITIONS, replication_factor=1)
        key = new_key()
        chatbot = await create(broker.connection, "demo", key)

        listener = exits.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        supervisor = Supervisor(data_dir / "logs", lambda: None)
        exits.push_async_callback(supervisor.stop)
        roles = {}
        for role, command in ROLES.items():
            fds = [listener.fileno()] if role == "gateway" else []
            environment = {
                "OPENBAT_DATA_DIR": str(data_dir),
                "OPENBAT_KAFKA_BOOTSTRAP": f"127.0.0.1:{links[role].port}",
                "OPENBAT_CLICKHOUSE_URL": f"http://127.0.0.1:{links[TO_CLICKHOUSE].port}",
                "OPENBAT_PRODUCE_TIMEOUT_SECONDS": str(produce_seconds),
            }
            argv = [sys.executable, "-m", "openbat", *command, *(f"--fd={fd}" for fd in fds)]
            roles[role] = supervisor.start(Spec(role, argv, environment, fds))
        await supervisor.wait_ready(list(roles.values()), READY_SECONDS)
        await wait_exact(broker.connection, READY_SECONDS)

        gateway_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        found = state.LocalState(
            gateway_url, clickhouse_url, broker.bootstrap, chatbot.id, key, processes=[]
        )
        state.write(data_dir, found)
        stack = Stack(data_dir, {"OPENBAT_DATA_DIR": str(data_dir)})
        yield Rig(stack, broker, engine, links, roles, produce_seconds)


def judge(report: Report, figures: list[Figure]) -> None:
    """Report figures, and fail where one is out of its bound."""
    report.figures += figures
    for figure in figures:
        say(f"{figure.what}: {figure.value} {figure.unit}")
    assert [figure for figure in figures if not figure.holds] == []


def at_most(what: str, value: float, bound: float, unit: str = "") -> Figure:
    return Figure(what, value, unit, f"<= {bound:g}", value <= bound)


def say(what: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {what}", flush=True)  # noqa: T201 - `pytest -s` shows it


def _wait_clickhouse(url: str) -> None:
    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/ping").status_code == 200
        return False

    wait_until(answers, READY_SECONDS, "ClickHouse")


def _migrate(url: str) -> None:
    client = clickhouse_client(url)
    migrate(client)
    client.close()
