"""The registry's backup on real brokers: what one cluster had works in another."""

import asyncio
import hashlib
from pathlib import Path

from openbat.kafka import migrate_topics, read_registry
from tests.brokers import Broker, brokers
from tests.stack import Stack

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
        new.openbat("chatbots", "archive", "bank")
        refused = new.openbat("chatbots", "restore", str(file), check=False)
        assert (refused.returncode, refused.stdout) == (1, "written=0 unchanged=1 refused=1\n")
        assert refused.stderr.startswith("bank: it was changed since")
        assert asyncio.run(read_registry(broker.connection)).generation == 2
