"""A pipeline on three brokers, each topic on all of them, as a production's would be."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from openbat.chatbots import create, new_key
from openbat.connection import Connection
from openbat.local import kafka, state
from openbat.local.probe import wait_exact
from openbat.local.supervisor import Spec, Supervised, Supervisor
from tests.brokers import Broker, brokers
from tests.load import Load
from tests.outages.rig import PARTITIONS, READY_SECONDS, ROLES
from tests.stack import Stack, free_port

BROKERS = 3


class Cluster:
    """Brokers that can die, with ClickHouse's engine and one process of each role beside them."""

    def __init__(self, stack: Stack, made: list[Broker]) -> None:
        self.stack = stack
        self.brokers = made

    @property
    def connection(self) -> Connection:
        return self.stack.connection

    def load(self, name: str, clients: int) -> Load:
        return Load(self.stack, name, clients=clients, partitions=PARTITIONS)

    def wipe(self, broker: Broker) -> None:
        """Lose a dead broker's disk: its records, its metadata, its vote."""
        shutil.rmtree(kafka.layout(broker.data_dir).log_dir)

    async def start(self, broker: Broker) -> None:
        await asyncio.to_thread(broker.start)
        await kafka.wait_ready(broker.bootstrap, READY_SECONDS)

    async def in_sync(self, seconds: float) -> None:
        """Return when every replica of every partition has all records."""
        async with asyncio.timeout(seconds):
            # Kafka tells nobody when a replica has caught up.
            while not await self._is_in_sync():  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def _is_in_sync(self) -> bool:
        try:
            async with admin(self.connection) as client:
                found = await client.describe_topics()
        except KafkaError:  # a broker that has just come back takes no connection yet
            return False
        return all(
            len(partition["isr"]) == BROKERS for topic in found for partition in topic["partitions"]
        )


@contextlib.asynccontextmanager
async def admin(connection: Connection) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(**connection.options())
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def settings_of(connection: Connection, topic: str) -> dict[str, str]:
    """Return a topic's settings, as the broker has them."""
    async with admin(connection) as client:
        (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    (resource,) = answer.resources
    return {entry[0]: entry[1] for entry in resource[4]}


@contextlib.asynccontextmanager
async def running(data_dir: Path, produce_seconds: float) -> AsyncIterator[Cluster]:
    """Run all of it on free ports; it answers exactly when this yields.

    Args:
        data_dir: of all of them.
        produce_seconds: after it a gateway must answer with 503.

    """
    async with contextlib.AsyncExitStack() as exits:
        starting = brokers(data_dir, BROKERS, replication_factor=BROKERS)
        made = await asyncio.to_thread(starting.__enter__)
        exits.push_async_callback(asyncio.to_thread, starting.__exit__, None, None, None)
        connection = Connection(",".join(broker.bootstrap for broker in made))
        clickhouse_port = free_port()
        stack = Stack(
            data_dir,
            {
                "OPENBAT_DATA_DIR": str(data_dir),
                "OPENBAT_KAFKA_BOOTSTRAP": connection.bootstrap,
                "OPENBAT_CLICKHOUSE_URL": f"http://127.0.0.1:{clickhouse_port}",
                "OPENBAT_CLICKHOUSE_PORT": str(clickhouse_port),
                "OPENBAT_PARTITIONS": str(PARTITIONS),
                "OPENBAT_REPLICATION_FACTOR": str(BROKERS),
                "OPENBAT_PRODUCE_TIMEOUT_SECONDS": str(produce_seconds),
            },
        )
        supervisor = Supervisor(data_dir / "logs", lambda: None)
        exits.push_async_callback(supervisor.stop)
        environment = {
            name: value for name, value in stack.environment.items() if name not in os.environ
        }

        def start(role: str, command: list[str], fds: list[int]) -> Supervised:
            argv = [sys.executable, "-m", "openbat", *command, *(f"--fd={fd}" for fd in fds)]
            return supervisor.start(Spec(role, argv, environment, fds))

        engine = start("clickhouse-server", ["local-clickhouse"], [])
        await supervisor.wait_ready([engine], READY_SECONDS)
        await asyncio.to_thread(stack.openbat, "migrate")
        key = new_key()
        chatbot = await create(connection, "demo", key)
        listener = exits.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        roles = [
            start(role, command, [listener.fileno()] if role == "gateway" else [])
            for role, command in ROLES.items()
        ]
        await supervisor.wait_ready(roles, READY_SECONDS)
        found = state.LocalState(
            f"http://127.0.0.1:{listener.getsockname()[1]}",
            stack.environment["OPENBAT_CLICKHOUSE_URL"],
            connection.bootstrap,
            chatbot.id,
            key,
            processes=[],
        )
        state.write(data_dir, found)
        await wait_exact(connection, READY_SECONDS)
        yield Cluster(stack, made)
