"""Brokers of a test's own: other listeners than the local stack's, or several of them."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openbat.connection import Connection
from openbat.local import jars, java, kafka
from tests.stack import ROOT, Running, free_port

JARS_DIR = Path(os.environ.get("OPENBAT_JARS_DIR") or ROOT / ".openbat" / "jars")
READY_SECONDS = 60.0


@dataclass
class Broker:
    """One broker: its process can be killed, and started again on the same ports and disk."""

    number: int
    data_dir: Path
    port: int
    controller_port: int
    listeners: dict[str, int]
    overrides: dict[str, str | int]
    cluster_id: str
    process: Running

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connection(self) -> Connection:
        return Connection(self.bootstrap)

    def prepare(self) -> None:
        """Write its settings; format its disk where that is empty."""
        kafka.prepare(
            self.data_dir,
            jars.fetch(JARS_DIR),
            java.find_java(),
            self.port,
            self.controller_port,
            self.overrides,
            self.cluster_id,
        )

    def start(self) -> None:
        self.prepare()
        self.process.start()


@contextlib.contextmanager
def brokers(
    data_dir: Path,
    count: int = 1,
    properties: Callable[[int], dict[str, str | int]] = lambda _: {},
    replication_factor: int = 1,
    advertised: Callable[[int], dict[str, int]] = lambda _: {},
) -> Iterator[list[Broker]]:
    """Run brokers of one cluster, each a controller too; they are ready when this yields.

    Args:
        data_dir: a directory for each of them is made there.
        count: how many.
        properties: of server.properties, for the broker of a number from 1 on; they win over the
            local stack's.
        replication_factor: of Kafka's own topics.
        advertised: further listeners by name, each with the port that clients are sent to, such as
            a proxy's; where they really listen is in `Broker.listeners`.

    """
    ports = [(free_port(), free_port()) for _ in range(count)]
    voters = ",".join(f"{at}@127.0.0.1:{port}" for at, (_, port) in enumerate(ports, start=1))
    in_sync = max(1, replication_factor - 1)
    cluster_id = kafka.new_cluster_id()
    found = jars.fetch(JARS_DIR)
    with contextlib.ExitStack() as exits:
        made = []
        for number, (port, controller_port) in enumerate(ports, start=1):
            directory = data_dir / f"broker-{number}"
            named = advertised(number)
            listeners = {name: free_port() for name in named}
            overrides: dict[str, str | int] = {
                "node.id": number,
                "controller.quorum.voters": voters,
                "offsets.topic.replication.factor": replication_factor,
                "transaction.state.log.replication.factor": replication_factor,
                "transaction.state.log.min.isr": in_sync,
                "share.coordinator.state.topic.replication.factor": replication_factor,
                "share.coordinator.state.topic.min.isr": in_sync,
                **_listeners(port, controller_port, listeners, named),
                **properties(number),
            }
            process = Running(
                kafka.command(directory, found, java.find_java()),
                os.environ,
                data_dir / f"broker-{number}.log",
            )
            broker = Broker(
                number, directory, port, controller_port, listeners, overrides, cluster_id, process
            )
            broker.start()
            # Brokers that go at once wait for each other in vain, so they are not asked to.
            exits.callback(process.kill)
            made.append(broker)
        for broker in made:
            asyncio.run(kafka.wait_ready(broker.bootstrap, READY_SECONDS))
        yield made


def _listeners(
    port: int, controller_port: int, ports: dict[str, int], advertised: dict[str, int]
) -> dict[str, str | int]:
    own = {"PLAINTEXT": port}
    names = [*own, *ports, "CONTROLLER"]
    return {
        "listeners": _urls({**own, **ports, "CONTROLLER": controller_port}),
        "advertised.listeners": _urls({**own, **advertised}),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _urls(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
