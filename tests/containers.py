"""The stack on testcontainers' Kafka and ClickHouse, with our roles as processes beside them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from testcontainers.clickhouse import ClickHouseContainer
from testcontainers.kafka import KafkaContainer

from openbat.local import state
from tests.stack import OPENBAT, START_SECONDS, Stack, free_port, process

KAFKA_IMAGE = "confluentinc/cp-kafka:8.0.0"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:25.8"


@contextlib.contextmanager
def container_stack(data_dir: Path, roles: dict[str, int]) -> Iterator[Stack]:
    """Run the containers and the roles; write the local.json that a local stack would.

    Args:
        data_dir: of the roles.
        roles: how many processes of `gateway`, `conversations` and `clickhouse`; gateways beyond
            the first get ports of their own.

    """
    with contextlib.ExitStack() as exits:
        kafka = exits.enter_context(KafkaContainer(KAFKA_IMAGE).with_kraft())
        clickhouse = exits.enter_context(ClickHouseContainer(CLICKHOUSE_IMAGE))
        clickhouse_url = (
            f"http://{clickhouse.username}:{clickhouse.password}@"
            f"{clickhouse.get_container_host_ip()}:{clickhouse.get_exposed_port(8123)}"
        )
        port = free_port()
        stack = Stack(
            data_dir,
            {
                "OPENBAT_DATA_DIR": str(data_dir),
                "OPENBAT_KAFKA_BOOTSTRAP": kafka.get_bootstrap_server(),
                "OPENBAT_CLICKHOUSE_URL": clickhouse_url,
                "OPENBAT_REPLICATION_FACTOR": "1",
            },
        )
        stack.openbat("migrate")
        key = stack.make_chatbot("demo")
        shown = stack.openbat("chatbots", "show", "demo").stdout
        chatbot_id = next(line.split()[1] for line in shown.splitlines() if line.startswith("id"))
        processes = []
        for role, count in roles.items():
            for number in range(count):
                command = ["gateway"] if role == "gateway" else ["worker", role]
                own = {"OPENBAT_PORT": str(free_port() if number else port)}
                started = exits.enter_context(
                    process(
                        [*OPENBAT, *command],
                        {**stack.environment, **own},
                        data_dir / f"{role}-{number}.log",
                    )
                )
                processes.append(state.Process(role, started.pid))
        gateway_url = f"http://127.0.0.1:{port}"
        _wait_exact(gateway_url, key)
        exits.enter_context(state.locked(data_dir))
        state.write(
            data_dir,
            state.LocalState(
                gateway_url,
                clickhouse_url,
                kafka.get_bootstrap_server(),
                chatbot_id,
                key,
                processes,
            ),
        )
        yield stack


def _wait_exact(gateway_url: str, key: str) -> None:
    end = time.monotonic() + START_SECONDS
    body = {"conversationId": "warm-up", "messages": [{"role": "system", "content": "", "id": "1"}]}
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.post(
                f"{gateway_url}/api/v1/capture",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
            )
            if answer.status_code == 200 and not answer.json()["warnings"]:
                return
        time.sleep(0.2)
    raise AssertionError("the container stack does not answer exactly")
