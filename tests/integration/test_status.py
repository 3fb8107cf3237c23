"""`openbat status` on the real stack: nothing lags, a worker is away, letters, no topics yet."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner, Result

from openbat.cli import app
from openbat.connection import Connection
from openbat.dead_letters.reading import LettersReader
from openbat.kafka import start_producer
from openbat.status.cli import NOT_WELL
from schemas import sizes, topics
from tests.brokers import brokers
from tests.stack import Stack, local_stack

PARTITIONS = 8
CONVERSATIONS = 20
EXPELLED_SECONDS = 40
"""More than a session: a worker that is stopped is a member for so long."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a stack with one worker of each role, so that one that is away is all of them."""
    with local_stack(tmp_path_factory.mktemp("status"), OPENBAT_ANALYSIS_WORKERS="1") as running:
        yield running


def status(stack: Stack, *arguments: str) -> Result:
    """Run `openbat status` in this process, which saves a second each."""
    try:
        return CliRunner().invoke(app, ["status", *arguments], env=stack.environment)
    finally:
        logging.disable(logging.NOTSET)


def looked(stack: Stack) -> tuple[int, dict[str, Any]]:
    done = status(stack, "--json")
    return done.exit_code, json.loads(done.stdout)


def wait(
    stack: Stack, condition: Callable[[int, dict[str, Any]], bool], seconds: float
) -> tuple[int, dict[str, Any]]:
    """Look until it is so; return the last look, whatever it saw."""
    end = time.monotonic() + seconds
    while True:
        code, found = looked(stack)
        if condition(code, found) or time.monotonic() > end:
            return code, found
        time.sleep(0.3)


def lags(found: dict[str, Any]) -> dict[str, int]:
    return {
        topic["topic"]: topic["lag_records"] for role in found["roles"] for topic in role["topics"]
    }


def post(stack: Stack, name: str, prefer: str = "wait=10") -> None:
    headers = {"Authorization": f"Bearer {stack.state['api_key']}", "Prefer": prefer}
    body = {"conversationId": name, "messages": [{"id": "m", "role": "user", "content": "hello"}]}
    answer = httpx.post(
        f"{stack.gateway_url}/api/v1/capture", json=body, headers=headers, timeout=30
    )
    answer.raise_for_status()


def test_all_is_well_when_all_that_was_posted_is_done(stack: Stack) -> None:
    for number in range(CONVERSATIONS):
        post(stack, f"well-{number}")
    code, found = wait(
        stack,
        lambda code, found: code == 0 and not any(lags(found).values()),
        seconds=30,
    )
    assert (code, found["problems"], found["notes"]) == (0, [], [])
    assert lags(found) == dict.fromkeys(
        (topics.CAPTURES, topics.MESSAGES, topics.ANALYSES, topics.ANALYSIS, topics.ANALYSIS_LATER),
        0,
    )
    for role in found["roles"]:
        assert (role["members"], role["state"]) == (1, "Stable")
        for topic in role["topics"]:
            assert topic["partitions"] == topic["read"] == PARTITIONS
            assert topic["oldest_seconds"] is None
    (newest,) = stack.sql(
        "SELECT toUnixTimestamp64Micro(max(received_at)) AS at, count() AS rows "
        "FROM openbat.messages"
    )
    assert found["clickhouse"]["message_rows"] == newest["rows"]
    at = found["clickhouse"]["newest_received_at"]
    assert stack.sql(
        f"SELECT toUnixTimestamp64Micro(toDateTime64('{at[:-1]}', 6, 'UTC')) AS at"
    ) == [{"at": newest["at"]}]
    assert found["dead_letters"] == {"total": 0, "reasons": {}}
    assert {each["pid"] for each in found["processes"]} >= set(stack.pids("gateway"))
    assert all(each["alive"] for each in found["processes"])
    shown = status(stack).stdout
    assert "All is well." in shown
    assert "Dead letters  none" in shown


def test_dead_letters_are_counted_by_reason_and_no_failure(stack: Stack) -> None:
    reader = LettersReader(stack.connection)
    assert asyncio.run(reader.read()) == []
    asyncio.run(_produce(stack.connection, b"\x09 no record"))
    code, found = wait(stack, lambda _, found: found["dead_letters"]["total"] == 1, seconds=20)
    assert (code, found["problems"]) == (0, [])
    assert found["dead_letters"] == {"total": 1, "reasons": {"undecodable_record": 1}}
    assert "`openbat dead-letters list`" in found["notes"][0]
    # One that watches reads on, the tombstone too.
    (letter,) = asyncio.run(reader.read())
    assert asyncio.run(reader.read()) == [letter]
    stack.openbat("dead-letters", "drop", "--all", "--yes")
    assert asyncio.run(reader.read()) == []
    assert looked(stack)[1]["dead_letters"]["total"] == 0


async def _produce(connection: Connection, value: bytes) -> None:
    producer = await start_producer(connection, sizes.BATCH)
    try:
        await producer.send_and_wait(topics.CAPTURES, value, partition=0)
    finally:
        await producer.stop()


@contextlib.contextmanager
def away(stack: Stack, role: str) -> Iterator[None]:
    """Stop a role's one process, which its supervisor would start again if it were killed."""
    (pid,) = stack.pids(role)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_worker_that_is_away_is_said_with_what_waits_for_it(stack: Stack) -> None:
    with away(stack, "conversations"):
        post(stack, "away", prefer="respond-async")
        code, found = looked(stack)
        assert code == NOT_WELL
        (hung,) = found["problems"]
        assert "conversations-0, process" in hung
        assert "is alive and does not answer" in hung
        code, found = wait(
            stack, lambda _, found: not found["roles"][0]["members"], seconds=EXPELLED_SECONDS
        )
        problem, *others = found["problems"]
        assert (code, others) == (NOT_WELL, [hung])
        assert problem.startswith("no conversations worker is a member of its group")
        assert "`openbat worker conversations`" in problem
        assert lags(found)[topics.CAPTURES] == 1
        (captures,) = found["roles"][0]["topics"]
        assert (captures["read"], found["roles"][0]["members"]) == (0, 0)
        assert 1 < captures["oldest_seconds"] < EXPELLED_SECONDS + 10
        assert f"! {problem}" in status(stack).stdout
    code, found = wait(
        stack, lambda code, found: code == 0 and not any(lags(found).values()), seconds=60
    )
    assert (code, found["problems"]) == (0, [])


def test_clickhouse_that_is_away_hides_nothing_else(stack: Stack) -> None:
    with away(stack, "clickhouse-server"):
        code, found = looked(stack)
    assert code == NOT_WELL
    assert found["clickhouse"] is None
    assert "OPENBAT_CLICKHOUSE_URL" in found["problems"][0]
    assert [role["members"] for role in found["roles"]] == [1, 1, 1]


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("chatbots", "list"),
        ("chatbots", "create", "x"),
        ("dead-letters", "list"),
        ("reanalyze", "--chatbot", "x", "--since", "2026-01-01"),
    ],
)
def test_where_no_topics_are_the_command_that_makes_them_is_named(
    bare: Stack, command: tuple[str, ...]
) -> None:
    done = bare.openbat(*command, check=False)
    assert done.returncode == (NOT_WELL if command == ("status",) else 1)
    assert "run `openbat migrate`" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert asyncio.run(_topics(Connection(bare.environment["OPENBAT_KAFKA_BOOTSTRAP"]))) == []


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a broker without a topic, and no ClickHouse."""
    data_dir: Path = tmp_path_factory.mktemp("bare")
    with brokers(data_dir) as (broker,):
        yield Stack(
            data_dir,
            {
                "OPENBAT_DATA_DIR": str(data_dir),
                "OPENBAT_KAFKA_BOOTSTRAP": broker.bootstrap,
                "OPENBAT_CLICKHOUSE_URL": "http://127.0.0.1:1",
            },
        )


async def _topics(connection: Connection) -> list[str]:
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        return [topic for topic in await admin.list_topics() if not topic.startswith("__")]
    finally:
        await admin.close()
