"""From the release before to this one, role by role, under load; one step back on the way."""

import asyncio
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from openbat.connection import Connection
from openbat.kafka import make_reader
from openbat.local import state
from schemas import topics
from tests.brokers import brokers
from tests.report import Report
from tests.stack import Stack, free_port, wait_until
from tests.upgrade.fleet import Fleet, Place, fleet
from tests.upgrade.formats import FORMATS, kind_of, rewritten
from tests.upgrade.load import Load
from tests.upgrade.releases import CURRENT, Release

PARTITIONS = 4
ANSWERS_PER_STEP = 20
FULL_ANSWERS_PER_STEP = 400
"""Of each gateway, before the next step."""

SCHEMA = [f"{name}=number" for name in ("turn", "turn0", "turn1", "turn2")]
WORKERS: list[Place] = [
    (role, number) for role in ("conversations", "clickhouse") for number in range(2)
]
NEW = {topics.ANALYSIS_LATER, topics.CONTEXTS_CHANGELOG, topics.SPENDING}
"""Topics that the release before does not know."""
SILENT = {topics.ANALYSES, topics.DEAD_LETTERS} | NEW
"""Topics that must be empty: no analysis worker runs yet, and nothing may be undecodable."""


class Pipeline(NamedTuple):
    """What runs: processes, the stack's addresses, and the load on it."""

    processes: Fleet
    stack: Stack
    load: Load


@contextmanager
def pipeline(directory: Path, first: Release) -> Iterator[Pipeline]:
    """Run Kafka, ClickHouse's engine, and two processes of each role of a release."""
    ports = {("gateway", number): free_port() for number in range(2)}
    urls = [f"http://127.0.0.1:{port}" for port in ports.values()]
    clickhouse_port = free_port()
    with brokers(directory) as (broker,):
        clickhouse_url = f"http://127.0.0.1:{clickhouse_port}"
        stack = Stack(
            directory,
            {
                "OPENBAT_DATA_DIR": str(directory),
                "OPENBAT_KAFKA_BOOTSTRAP": broker.bootstrap,
                "OPENBAT_CLICKHOUSE_URL": clickhouse_url,
                "OPENBAT_CLICKHOUSE_PORT": str(clickhouse_port),
                "OPENBAT_REPLICATION_FACTOR": "1",
                "OPENBAT_PARTITIONS": str(PARTITIONS),
            },
        )
        own = {place: {"OPENBAT_PORT": str(port)} for place, port in ports.items()}
        with fleet(stack.environment, own, directory) as processes:
            # The database is no part of the upgrade.
            processes.start(CURRENT, ("clickhouse-server", 0))
            first.openbat(stack.environment, "migrate")
            key = first.openbat(stack.environment, "chatbots", "create", "shop").strip()
            first.openbat(stack.environment, "chatbots", "set-schema", "shop", *SCHEMA)
            state.write(
                directory,
                state.LocalState(urls[0], clickhouse_url, broker.bootstrap, "", key, []),
            )
            processes.start(first, *WORKERS, *ports)
            yield Pipeline(processes, stack, Load(urls, key))


def check_rows(stack: Stack, load: Load) -> None:
    """Check that ClickHouse holds every message exactly once, and every conversation's state."""
    expected = [{"rows": load.messages}]
    assert stack.wait_sql("SELECT count() AS rows FROM openbat.messages", expected) == expected
    found = stack.sql(
        "SELECT external_conversation_id AS name, groupArray(content) AS contents "
        "FROM (SELECT * FROM openbat.messages ORDER BY position) GROUP BY name"
    )
    assert {row["name"]: row["contents"] for row in found} == {
        known.name: known.contents for known in load.all_conversations
    }
    states = {
        known.name: (len(known.contents), known.plan, known.custom)
        for known in load.all_conversations
    }

    def stored() -> dict[str, tuple[int, str, dict[str, int]]]:
        rows = stack.sql(
            "SELECT external_conversation_id AS name, message_count, user_plan, custom "
            "FROM openbat.conversations"
        )
        return {
            row["name"]: (row["message_count"], row["user_plan"], json.loads(row["custom"]))
            for row in rows
        }

    wait_until(lambda: stored() == states, 30, "the conversations' states")


def check_sentiments(stack: Stack, load: Load) -> None:
    """Check that each message has one sentiment, whichever release's worker asked for it."""
    expected = [{"rows": load.messages, "messages": load.messages}]
    query = (
        "SELECT count() AS rows, uniqExact(conversation_id, message_id) AS messages "
        "FROM openbat.analyses WHERE kind = 'sentiment'"
    )
    assert stack.wait_sql(query, expected, 60) == expected


async def all_values(connection: Connection) -> dict[str, list[tuple[bytes | None, bytes]]]:
    """Return keys and values of every topic's records, without tombstones."""
    reader: AIOKafkaConsumer = make_reader(connection, "read_committed")
    await reader.start()
    found: dict[str, list[tuple[bytes | None, bytes]]] = defaultdict(list)
    try:
        parts = [
            TopicPartition(topic.name, number)
            for topic in topics.TOPICS
            for number in range(topic.partitions or PARTITIONS)
        ]
        reader.assign(parts)
        await reader.seek_to_beginning(*parts)
        ends = await reader.end_offsets(parts)
        for part in parts:
            while await reader.position(part) < ends[part]:
                for records in (await reader.getmany(timeout_ms=100)).values():
                    for record in records:
                        if record.value is not None:
                            found[record.topic].append((record.key, record.value))
    finally:
        await reader.stop()
    return found


def check_formats(connection: Connection, previous: Release) -> Counter[str]:
    """Check that both releases read all there is in Kafka, to the same; count it by kind.

    What this release makes of a value must tell the release before the same as the value itself.
    """
    found = asyncio.run(all_values(connection))
    assert {topic.name for topic in topics.TOPICS} - found.keys() == SILENT
    values = [(kind_of(topic, key), value) for topic in found for key, value in found[topic]]
    assert {kind for kind, _ in values} == FORMATS.keys()
    again = [(kind, value) for (kind, _), value in zip(values, rewritten(values), strict=True)]
    assert previous.rewritten(again) == previous.rewritten(values)
    return Counter(kind for kind, _ in values)


@pytest.mark.timeout(400)
def test_role_by_role_under_load(
    tmp_path: Path, previous: Release, full: bool, report: Report
) -> None:
    answers = FULL_ANSWERS_PER_STEP if full else ANSWERS_PER_STEP
    with pipeline(tmp_path, previous) as (processes, stack, load):
        started = time.monotonic()

        def step(what: str) -> None:
            load.wait_answers(answers)
            print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)  # noqa: T201

        with load.posting():
            step("all of the release before")
            CURRENT.openbat(stack.environment, "migrate")
            processes.replace(CURRENT, ("clickhouse", 0), ("gateway", 0))
            step("a new gateway before old conversations workers")
            processes.replace(CURRENT, ("conversations", 0))
            step("an old and a new conversations worker")
            processes.replace(CURRENT, ("clickhouse", 1), ("conversations", 1))
            step("an old gateway before new workers")
            processes.replace(previous, ("conversations", 0))
            step("a conversations worker rolled back")
            processes.replace(CURRENT, ("conversations", 0), ("gateway", 1))
            step("all of this release")
        exact = sum(load.answers.values())
        check_rows(stack, load)
        assert load.stored + load.unknown == load.messages
        report.add("messages, each exactly once", load.messages)
        report.add("exact answers under load, all right", exact)
        report.add("messages whose count was not told", load.unknown)

        repeated = load.post_again()
        check_rows(stack, load)
        report.add("captures repeated after the upgrade, nothing new", repeated)

        conversations = [place for place in WORKERS if place[0] == "conversations"]
        processes.stop(*conversations)
        for directory in (tmp_path / "workers").glob("conversations-*"):
            for path in directory.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
        processes.start(CURRENT, *conversations)
        load.post_more()
        load.post_again()
        check_rows(stack, load)
        print(f"{time.monotonic() - started:6.1f} s  tables recovered", flush=True)  # noqa: T201

        values = check_formats(stack.connection, previous)
        report.add("values in Kafka that both releases read to the same", values.total())

        processes.start(CURRENT, ("analysis", 0))
        check_sentiments(stack, load)
        report.add("messages of either release's worker analysed, each once", load.messages)
