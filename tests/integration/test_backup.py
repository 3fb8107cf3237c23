"""The registry's backup on real brokers: what one cluster had works in another."""

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from gateway.app import CAPTURE
from openbat.chatbot_backup import FORMAT, Backup
from openbat.command import json_of
from openbat.kafka import migrate_topics, read_registry
from schemas import topics
from schemas.chatbots import DEMO
from schemas.records import captures_codec
from tests.brokers import Broker, brokers
from tests.captures import read_partition
from tests.stack import OPENBAT, Stack, free_port, process, wait_until
from tests.unit.test_gateway import chatbot

PARTITIONS = 2
NAMES = ("shop", "bank")


def commands(data_dir: Path, broker: Broker) -> Stack:
    """Return a deployment of a broker with its topics, for `openbat` commands."""
    asyncio.run(migrate_topics(broker.connection, PARTITIONS, replication_factor=1))
    return Stack(
        data_dir,
        {"OPENBAT_DATA_DIR": str(data_dir), "OPENBAT_KAFKA_BOOTSTRAP": broker.bootstrap},
    )


def test_a_lost_registry_is_restored_with_its_keys_and_captures_go_on(tmp_path: Path) -> None:
    file = tmp_path / "chatbots.json"
    with brokers(tmp_path / "old") as (broker,):
        old = commands(tmp_path, broker)
        keys = {name: old.make_chatbot(name) for name in NAMES}
        old.openbat("chatbots", "set", "shop", "rate-limit=5/minute")
        old.openbat("chatbots", "export", str(file))
        before = asyncio.run(read_registry(broker.connection))
    assert not any(key in file.read_text() for key in keys.values())

    with brokers(tmp_path / "new") as (broker,):
        new = commands(tmp_path, broker)
        done = new.openbat("chatbots", "restore", str(file))
        assert done.stdout == "written=2 unchanged=0 refused=0\n"
        after = asyncio.run(read_registry(broker.connection))
        assert after.chatbots() == before.chatbots()
        for name, key in keys.items():
            found = after.chatbot_of(hashlib.sha256(key.encode()).digest())
            assert found is not None
            assert found.name == name
        # Both made captures once; what comes now must not be taken for what came then.
        assert (before.generation, after.generation) == (1, 2)
        new.openbat("chatbots", "archive", "bank", "--yes")
        refused = new.openbat("chatbots", "restore", str(file), check=False)
        assert (refused.returncode, refused.stdout) == (1, "written=0 unchanged=1 refused=1\n")
        assert refused.stderr.startswith("bank: it was changed since")
        assert asyncio.run(read_registry(broker.connection)).generation == 2


def test_gateways_that_ran_before_go_by_the_restored_generation(tmp_path: Path) -> None:
    file = tmp_path / "chatbots.json"
    with brokers(tmp_path / "old") as (broker,):
        old = commands(tmp_path, broker)
        key = old.make_chatbot("shop")
        old.openbat("chatbots", "export", str(file))

    with brokers(tmp_path / "new") as (broker,):
        new = commands(tmp_path, broker)
        port = free_port()
        url = f"http://127.0.0.1:{port}"

        def answers(path: str, **options: Any) -> int:
            with contextlib.suppress(httpx.TransportError):
                return httpx.request(url=f"{url}{path}", trust_env=False, **options).status_code
            return 0

        def posts() -> int:
            return answers(
                CAPTURE,
                method="POST",
                headers={"Authorization": f"Bearer {key}"},
                json={"conversationId": "1", "messages": [{"role": "user", "content": "Hello"}]},
            )

        environment = {**new.environment, "OPENBAT_PORT": str(port)}
        with process([*OPENBAT, "gateway"], environment, tmp_path / "log"):
            wait_until(lambda: answers("/readyz", method="GET") == 200, 30, "the gateway")
            assert posts() == 401
            new.openbat("chatbots", "restore", str(file))
            wait_until(lambda: posts() == 200, 10, "its key is taken")
        written = [
            captures_codec.decode(value or b"").generation
            for partition in range(PARTITIONS)
            for _, value in asyncio.run(
                read_partition(broker.connection, topics.CAPTURES, partition)
            )
        ]
        assert written == [2]


def test_a_demo_that_nobody_used_gives_way_to_the_files(tmp_path: Path) -> None:
    theirs = replace(chatbot(), name=DEMO)
    file = tmp_path / "chatbots.json"
    file.write_bytes(json_of(Backup(FORMAT, theirs.created_at, 1, [theirs])))
    with brokers(tmp_path / "new") as (broker,):
        new = commands(tmp_path, broker)
        key = new.make_chatbot(DEMO)
        refused = new.openbat("chatbots", "restore", str(file), check=False)
        assert (refused.returncode, refused.stdout) == (1, "written=0 unchanged=0 refused=1\n")
        done = new.openbat("chatbots", "restore", str(file), "--overwrite")
        assert done.stdout == "written=1 unchanged=0 refused=0\n"
        after = asyncio.run(read_registry(broker.connection))
        assert after.chatbots() == [theirs]
        assert after.chatbot_of(hashlib.sha256(key.encode()).digest()) is None
