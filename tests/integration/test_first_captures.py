"""First captures, on a broker that asks who may: a gateway without the right to write them."""

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from openbat.kafka import REGISTRY_WRITER, migrate_topics
from schemas import topics
from tests.brokers import Broker, brokers
from tests.stack import OPENBAT, Stack, free_port, process, wait_until

ADMIN = "secret-secret-secret"
CHATBOTS = "/api/v1/chatbots"
ASKS_WHO_MAY: dict[str, str | int] = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
TOPIC, TRANSACTIONAL_ID = 2, 5
READ, WRITE, DESCRIBE = 3, 4, 8
LITERAL, ALLOW = 3, 3
"""Kafka's numbers, of ResourceType, AclOperation, PatternType and AclPermissionType."""
WARNING = "first captures can't be written"


def allow(broker: Broker, resource: int, name: str, operation: int) -> None:
    """Let everybody do this to it; where it is the first such rule, nothing but this."""

    async def create() -> None:
        admin = AIOKafkaAdminClient(**broker.connection.options())
        await admin.start()
        try:
            answer = await admin._send_to_controller(
                CreateAclsRequest(resource, name, LITERAL, "User:*", "*", operation, ALLOW)
            )
        finally:
            await admin.close()
        assert answer.creation_responses[0][0] == 0, answer

    asyncio.run(create())


def capture(url: str, key: str) -> int:
    body = {
        "conversationId": uuid.uuid4().hex,
        "messages": [{"id": "m", "role": "user", "content": "hello"}],
    }
    headers = {"Authorization": f"Bearer {key}", "Prefer": "respond-async"}
    return httpx.post(f"{url}/api/v1/capture", json=body, headers=headers, timeout=30).status_code


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("resource", "name", "other"),
    [(TOPIC, topics.CHATBOTS, READ), (TRANSACTIONAL_ID, REGISTRY_WRITER, DESCRIBE)],
    ids=["topic", "transactional id"],
)
def test_without_the_right_to_write_them_captures_are_taken_as_ever(
    tmp_path: Path, resource: int, name: str, other: int
) -> None:
    """And once the right is there, they are written."""
    log, port = tmp_path / "gateway.log", free_port()
    url = f"http://127.0.0.1:{port}"
    with brokers(tmp_path / "kafka", properties=lambda _: ASKS_WHO_MAY) as (broker,):
        asyncio.run(migrate_topics(broker.connection, 2, replication_factor=1))
        found = {
            "OPENBAT_DATA_DIR": str(tmp_path / "data"),
            "OPENBAT_KAFKA_BOOTSTRAP": broker.bootstrap,
            "OPENBAT_PORT": str(port),
            "OPENBAT_ADMIN_KEY": ADMIN,
        }
        stack = Stack(tmp_path, found)
        key = stack.make_chatbot("shop")
        allow(broker, resource, name, other)
        with (
            process([*OPENBAT, "gateway"], stack.environment, log) as gateway,
            httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {ADMIN}"},
                timeout=60,
            ) as admin,
        ):
            wait_until(lambda: is_ready(url), 60, "the gateway")

            def state() -> str:
                return str(admin.get(CHATBOTS).json()["chatbots"][0]["state"])

            taken_until(lambda: WARNING in log.read_text(), url, key)
            assert state() == "pending"
            refused = admin.post(CHATBOTS, json={"name": "another"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "log_away")

            allow(broker, resource, name, WRITE)
            taken_until(lambda: state() == "active", url, key)
            assert admin.post(CHATBOTS, json={"name": "another"}).status_code == 201
            begun = time.monotonic()
            gateway.stop()
            assert time.monotonic() - begun < 5
    assert log.read_text().count(WARNING) == 1
    assert "Traceback" not in log.read_text()


def taken_until(condition: Callable[[], bool], url: str, key: str) -> None:
    """Send one capture after the other, all of which are to be taken, until something is so."""

    def once() -> bool:
        assert capture(url, key) == 200
        return condition()

    wait_until(once, 60, "what captures wait for")
