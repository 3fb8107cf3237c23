"""What goes wrong on the way, on the real stack."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from aiokafka import TopicPartition

from gateway.decode import conversation_id_of
from openbat.kafka import captures_partitions, make_reader, start_producer
from schemas import sizes, topics
from schemas.records import (
    Captured,
    CapturedMessage,
    CapturesRecord,
    captures_codec,
    encode,
    replies_codec,
)
from tests.resident import resident_bytes
from tests.stack import OPENBAT, Stack, free_port, process, wait_until

PROVISIONAL = "Deduplication pending: messagesStored is provisional"


def post(client: httpx.Client, conversation: str, **headers: str) -> httpx.Response:
    body = {
        "conversationId": conversation,
        "messages": [
            {"id": "a", "role": "user", "content": "x"},
            {"id": "a", "role": "user", "content": "x"},
            {"id": "b", "role": "assistant", "content": "y"},
        ],
    }
    return client.post("/api/v1/capture", json=body, headers=headers)


@contextlib.contextmanager
def paused(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_without_workers_answers_are_provisional_and_then_exact_again(
    stack: Stack, demo: httpx.Client
) -> None:
    with paused(stack.pids("conversations")):
        first = post(demo, "paused")
        assert first.status_code == 200
        # Two of the three have different ids: more can't be new.
        assert first.json()["messagesStored"] == 2
        assert first.json()["warnings"] == [PROVISIONAL]
        started = time.monotonic()
        second = post(demo, "paused")
        assert second.json()["warnings"] == [PROVISIONAL]
        # The breaker of this gateway may be the other's: both know after two answers each.
        post(demo, "paused")
        post(demo, "paused")
        assert time.monotonic() - started < 4
    wait_until(lambda: post(demo, "paused").json()["warnings"] == [], 15, "exact answers")
    assert post(demo, "paused").json()["messagesStored"] == 0
    query = "SELECT count() AS rows FROM openbat.messages WHERE external_conversation_id = 'paused'"
    assert stack.wait_sql(query, [{"rows": 2}]) == [{"rows": 2}]


async def test_what_cant_be_decoded_goes_to_dead_letters_and_its_neighbours_go_on(
    stack: Stack,
) -> None:
    chatbot_id = UUID(stack.state["chatbot_id"])
    partitions = await captures_partitions(stack.connection)

    def frame(name: str) -> bytes:
        message = CapturedMessage("m", "user", "x", 0, True)
        conversation_id = conversation_id_of(chatbot_id, name).bytes
        return encode(
            Captured(
                chatbot_id.bytes, conversation_id, name, time.time_ns() // 1000, True, [message], {}
            )
        )

    # Both neighbours must live in the partition that the record is written to.
    names = (f"neighbour-{number}" for number in range(10_000))
    partition = 0
    before, after = (
        name
        for name, _ in zip(
            (
                name
                for name in names
                if topics.partition_of(conversation_id_of(chatbot_id, name).bytes, partitions)
                == partition
            ),
            range(2),
            strict=False,
        )
    )
    reply_partition = 31
    record = CapturesRecord(1, reply_partition, [frame(before), b"\xc1 no frame", frame(after)])
    replies = make_reader(stack.connection)
    letters = make_reader(stack.connection)
    producer = await start_producer(stack.connection, sizes.BATCH)
    try:
        for reader, source in (
            (replies, TopicPartition(topics.REPLIES, reply_partition)),
            (letters, TopicPartition(topics.DEAD_LETTERS, partition)),
        ):
            await reader.start()
            reader.assign([source])
            await reader.seek_to_end(source)
            await reader.position(source)
        whole = await producer.send_and_wait(
            topics.CAPTURES, b"\x09 no record", partition=partition
        )
        sent = await producer.send_and_wait(
            topics.CAPTURES, captures_codec.encode(record), partition=partition
        )
        async with asyncio.timeout(20):
            reply = replies_codec.decode((await replies.getone()).value)
            while reply.offset != sent.offset:
                reply = replies_codec.decode((await replies.getone()).value)
            found = [await letters.getone() for _ in range(2)]
    finally:
        await producer.stop()
        await replies.stop()
        await letters.stop()
    assert [result.stored for result in reply.results] == [1, None, 1]
    for letter, value, offset, index in (
        (found[0], b"\x09 no record", whole.offset, -1),
        (found[1], b"\xc1 no frame", sent.offset, 1),
    ):
        headers = dict(letter.headers)
        assert letter.value == value
        assert headers["reason"]
        assert headers["source-topic"] == topics.CAPTURES.encode()
        assert headers["source-partition"] == str(partition).encode()
        assert headers["source-offset"] == str(offset).encode()
        assert headers["source-index"] == str(index).encode()
    query = (
        "SELECT count() AS rows FROM openbat.messages "
        f"WHERE external_conversation_id IN ('{before}', '{after}')"
    )
    assert await asyncio.to_thread(stack.wait_sql, query, [{"rows": 2}]) == [{"rows": 2}]


async def test_an_undecodable_output_does_not_stop_the_clickhouse_worker(
    stack: Stack, demo: httpx.Client
) -> None:
    producer = await start_producer(stack.connection, sizes.BATCH)
    try:
        for partition in range(await captures_partitions(stack.connection)):
            await producer.send_and_wait(topics.MESSAGES, b"\x01 nothing", partition=partition)
    finally:
        await producer.stop()
    assert (await asyncio.to_thread(post, demo, "after poison")).status_code == 200
    query = (
        "SELECT count() AS rows FROM openbat.messages "
        "WHERE external_conversation_id = 'after poison'"
    )
    assert await asyncio.to_thread(stack.wait_sql, query, [{"rows": 2}]) == [{"rows": 2}]


def test_a_gateway_without_kafka_answers_503_never_401(stack: Stack, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **stack.environment,
        "OPENBAT_PORT": str(port),
        "OPENBAT_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
    }
    with (
        process([*OPENBAT, "gateway"], environment, tmp_path / "log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):

        def is_alive() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return client.get("/healthz").status_code == 200
            return False

        wait_until(is_alive, 20, "the gateway")
        assert client.get("/readyz").status_code == 503
        for headers in ({}, {"Authorization": "Bearer ob_live_" + "0" * 32}):
            refused = client.post("/api/v1/capture", json={}, headers=headers)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
            assert refused.json()["ok"] is False
    assert (tmp_path / "log").read_text().count("Traceback") == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("}]", "}"), 400),
        (('"user"', '"nobody"'), 400),
        (('"messages"', '"message"'), 400),
        (("x", 2 * "x"), 413),
    ],
)
def test_what_is_refused_holds_no_memory(
    stack: Stack, demo: httpx.Client, change: tuple[str, str], status: int
) -> None:
    """Garbage is collected rarely: a body in a cycle would wait for it."""
    size = sizes.DEFAULT_BODY * 2 // 3
    sent = json.dumps({"messages": 8 * [{"role": "user", "content": size // 8 * "x"}]})
    sent = sent.replace(*change)

    def resident() -> int:
        return sum(resident_bytes(pid) for pid in stack.pids("gateway"))

    def post_some(number: int) -> None:
        for _ in range(number):
            answer = demo.post(
                "/api/v1/capture", content=sent, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == status, answer.text

    post_some(20)
    before = resident()
    post_some(200)
    assert resident() - before < 50 * len(sent)


def test_migrate_changes_nothing_twice_and_refuses_another_partition_count(stack: Stack) -> None:
    again = stack.openbat("migrate").stdout.splitlines()
    assert again[:2] == ["topics made: none", "migrations applied: none"]
    # The local engine keeps no roles, and a container's user may make none: either says so.
    assert len(again) == 3
    assert again[2].startswith("roles: not made, ClickHouse refuses: ")
    assert "Not enough privileges" in again[2]
    refused = stack.openbat("migrate", check=False, OPENBAT_PARTITIONS="3")
    assert refused.returncode == 1
    assert "OPENBAT_PARTITIONS" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chatbots", "show", "nobody"), "no chatbot 'nobody'"),
        (("chatbots", "create", "demo"), "there is a chatbot 'demo' already"),
        (("chatbots", "set", "demo", "rate-limit=fast"), "600/minute"),
        (("chatbots", "set-schema", "demo", "plan=text"), "string, number, boolean"),
        (("chatbots", "set", "demo", "rate-limit=0/minute"), "600/minute"),
        (("chatbots", "set", "demo", "remember-ids=7"), "from 8 to 36500"),
        (("chatbots", "set-schema", "demo", "=string"), "name is missing"),
        (("chatbots", "create", " "), "printable"),
        (("import", "nowhere.jsonl"), "nowhere.jsonl can't be read"),
        (("import", "-", "--url", "http://127.0.0.1:1"), "no gateway answers"),
        (("import", "-", "--url", "127.0.0.1:8080"), "no gateway answers"),
    ],
)
def test_errors_are_one_sentence(stack: Stack, arguments: tuple[str, ...], said: str) -> None:
    done = stack.openbat(*arguments, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_are_printed_once_and_kept_nowhere_else(stack: Stack) -> None:
    key = stack.make_chatbot("secretive")
    assert len(key) == len("ob_live_") + 32
    for command in (("list",), ("show", "secretive")):
        shown = stack.openbat("chatbots", *command).stdout
        assert key not in shown
        assert key[:14] in shown
    logs = (path for path in stack.data_dir.rglob("*.log") if path.is_file())
    assert not any(key.encode() in path.read_bytes() for path in logs)
