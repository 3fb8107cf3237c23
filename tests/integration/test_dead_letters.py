"""Dead letters on the real stack: listed, shown, replayed exactly once, dropped."""

import asyncio
import contextlib
import json
import logging
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import UUID

import clickhouse_connect
import httpx
import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner, Result

from gateway.decode import conversation_id_of
from openbat.cli import app
from openbat.command import UnansweredError
from openbat.connection import Connection
from openbat.dead_letters.kafka import CHUNK_LETTERS
from openbat.dead_letters.listed import DeadLettersError, Filters, Listed
from openbat.dead_letters.reading import read, values
from openbat.kafka import captures_partitions, make_reader, migrate_topics, start_producer
from schemas import sizes, topics
from schemas.dead_letters import WHOLE_RECORD, DeadLetter, Reason, Source
from schemas.records import (
    Captured,
    CapturedMessage,
    CapturesRecord,
    Change,
    ConversationState,
    Fields,
    NewMessage,
    captures_codec,
    encode,
    messages_codec,
)
from sinks.rows import RowBatch
from sinks.writer import ClickHouseWriter
from tests.brokers import brokers
from tests.crash import failpoints
from tests.stack import OPENBAT, Stack, free_port, process, wait_until

PARTITION = 2
POISON = b"\xc1 no frame"
OFFSET = 900_000_000
"""Of records that letters name, though they were never there."""

LETTERS = 2 * CHUNK_LETTERS + 1


@pytest.fixture
def run() -> str:
    """Return what tells the conversations of one test from all others."""
    return uuid.uuid4().hex[:8]


def names(stack: Stack, run: str) -> Iterator[str]:
    """Return conversations of `demo` that live in PARTITION."""
    chatbot_id = UUID(stack.state["chatbot_id"])
    partitions = asyncio.run(captures_partitions(stack.connection))
    for number in range(10_000):
        name = f"{run}-{number}"
        of = topics.partition_of(conversation_id_of(chatbot_id, name).bytes, partitions)
        if of == PARTITION:
            yield name


def letters(stack: Stack, *arguments: str, stdin: str | None = None) -> Result:
    """Run an `openbat dead-letters` command in this process, which saves a second each."""
    try:
        return CliRunner().invoke(
            app, ["dead-letters", *arguments], env=stack.environment, input=stdin
        )
    finally:
        logging.disable(logging.NOTSET)


def frame(stack: Stack, name: str, *ids: str, remembered: bool = True) -> bytes:
    chatbot_id = UUID(stack.state["chatbot_id"])
    now = time.time_ns() // 1000
    messages = [CapturedMessage(each, "user", "x", now, remembered) for each in ids]
    conversation_id = conversation_id_of(chatbot_id, name).bytes
    return encode(Captured(chatbot_id.bytes, conversation_id, name, now, True, messages, {}))


def letter(offset: int, index: int, reason: Reason = "undecodable_capture") -> DeadLetter:
    return DeadLetter(reason, "mended", Source(topics.CAPTURES, PARTITION, offset, index))


async def _produce(connection: Connection, records: list[dict[str, Any]]) -> list[int]:
    producer = await start_producer(connection, sizes.BATCH)
    try:
        sent = [await producer.send(partition=PARTITION, **record) for record in records]
        return [done.offset for done in await asyncio.gather(*sent)]
    finally:
        await producer.stop()


def produce(connection: Connection, *records: dict[str, Any]) -> list[int]:
    """Send records to PARTITION; return their offsets."""
    return asyncio.run(_produce(connection, list(records)))


def dead(of: DeadLetter, value: bytes) -> dict[str, Any]:
    return {
        "topic": topics.DEAD_LETTERS, "value": value, "key": of.key, "headers": of.headers(),
    }  # fmt: skip


def found(stack: Stack, filters: Filters) -> list[Listed]:
    return [each for each in asyncio.run(read(stack.connection)) if filters.match(each)]


def ids(letters: list[Listed]) -> set[str]:
    return {each.id for each in letters}


def stored(stack: Stack, run: str, rows: int, counted: int) -> None:
    """Wait until all conversations of a run together have so many rows, and count as many."""
    like = f"WHERE external_conversation_id LIKE '{run}-%'"
    query = (
        f"SELECT (SELECT count() FROM openbat.messages {like}) AS rows, "
        f"(SELECT sum(message_count) FROM openbat.conversations {like}) AS counted"
    )
    expected = [{"rows": rows, "counted": counted}]
    assert stack.wait_sql(query, expected) == expected


def answered(stack: Stack) -> None:
    """Return when the workers have done all that PARTITION of captures holds now."""
    # A marker behind it, in a conversation of its own, is a row only after it.
    name = next(names(stack, f"marker-{uuid.uuid4().hex[:8]}"))
    value = captures_codec.encode(CapturesRecord(1, 0, [frame(stack, name, "m")]))
    produce(stack.connection, {"topic": topics.CAPTURES, "value": value})
    query = (
        f"SELECT count() AS rows FROM openbat.messages WHERE external_conversation_id = '{name}'"
    )
    assert stack.wait_sql(query, [{"rows": 1}]) == [{"rows": 1}]


def captures_end(stack: Stack) -> int:
    async def end() -> int:
        reader = make_reader(stack.connection)
        source = TopicPartition(topics.CAPTURES, PARTITION)
        await reader.start()
        try:
            return int((await reader.end_offsets([source]))[source])
        finally:
            await reader.stop()

    return asyncio.run(end())


def test_a_poison_capture_is_listed_shown_refused_and_dropped(stack: Stack, run: str) -> None:
    before, after = (name for name, _ in zip(names(stack, run), range(2), strict=False))
    record = CapturesRecord(1, 0, [frame(stack, before, "a"), POISON, frame(stack, after, "b")])
    (offset,) = produce(
        stack.connection, {"topic": topics.CAPTURES, "value": captures_codec.encode(record)}
    )
    stored(stack, run, rows=2, counted=2)
    letter_id = f"captures/{PARTITION}/{offset}/1"

    listed = letters(
        stack, "list", "--json", "--topic", "captures", "--partition", str(PARTITION),
        "--reason", "undecodable_capture", "--since", "1h",
    )  # fmt: skip
    document = json.loads(listed.stdout)
    (entry,) = (each for each in document["letters"] if each["id"] == letter_id)
    assert (entry["reason"], entry["offset"], entry["bytes"]) == (
        "undecodable_capture", offset, len(POISON),
    )  # fmt: skip
    assert document["counts"]["undecodable_capture"] == len(document["letters"])
    assert letter_id not in ids(found(stack, Filters(topic=topics.MESSAGES)))

    shown = letters(stack, "show", letter_id).stdout
    assert "undecodable_capture" in shown
    assert POISON.hex(" ", -4) in shown
    document = json.loads(letters(stack, "show", letter_id, "--json").stdout)
    assert document == {**entry, "value": {"hex": POISON.hex()}}
    refused = letters(stack, "replay", letter_id)
    assert (refused.exit_code, refused.stdout) == (1, "replayed=0 refused=1\n")
    assert f"{letter_id}: this release can't decode it either" in refused.stderr

    filters = ("--topic", "captures", "--partition", str(PARTITION))
    asked = letters(stack, "drop", *filters, stdin="n\n")
    assert asked.exit_code == 1
    assert "Drop them?" in asked.stderr
    assert letter_id in ids(found(stack, Filters()))
    dropped = letters(stack, "drop", *filters, stdin="y\n")
    assert dropped.stdout.startswith("dropped=")
    assert found(stack, Filters(topic=topics.CAPTURES, partition=PARTITION)) == []
    assert "there is no dead letter" in str(letters(stack, "drop", letter_id).exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay",), "ids, or filters, or --all"),
        (("drop", "--all", "--reason", "other"), "ids, or filters, or --all"),
        (("list", "--since", "soon"), "expected an age"),
        (("show", "nothing"), "there is no dead letter nothing"),
        (("drop", "--all"), "--yes"),
    ],
)
def test_errors_say_what_to_do(stack: Stack, arguments: tuple[str, ...], said: str) -> None:
    produce(stack.connection, dead(letter(OFFSET, 0), POISON))
    done = letters(stack, *arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, DeadLettersError | UnansweredError)
    assert said in str(done.exception)


def test_an_error_is_one_sentence(stack: Stack) -> None:
    done = stack.openbat("dead-letters", "show", "nothing", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("openbat: there is no dead letter nothing")
    assert len(done.stderr.splitlines()) == 1


def test_mended_letters_are_replayed_exactly_once(stack: Stack, run: str) -> None:
    one, two, three = (name for name, _ in zip(names(stack, run), range(3), strict=False))
    # The ids of the first were made by the gateway: the worker would not know them again.
    single = frame(stack, one, "a", "b", remembered=False)
    whole = CapturesRecord(9, 5, [frame(stack, two, "a"), POISON, frame(stack, three, "a", "b")])
    mended = [
        dead(letter(OFFSET, 4), single),
        dead(letter(OFFSET + 1, WHOLE_RECORD, "undecodable_record"), captures_codec.encode(whole)),
    ]
    wanted = [f"captures/{PARTITION}/{OFFSET}/4", f"captures/{PARTITION}/{OFFSET + 1}/-1"]
    remaining = f"captures/{PARTITION}/{OFFSET + 1}/1"
    # The second time it is as after a kill between the replay and the drop.
    for _ in range(2):
        produce(stack.connection, *mended)
        assert ids(found(stack, Filters())) >= set(wanted)
        done = letters(stack, "replay", *wanted)
        assert done.stdout == "replayed=2 refused=0\n"
        assert remaining in done.stderr
        left = ids(found(stack, Filters(partition=PARTITION)))
        assert remaining in left
        assert not left & set(wanted)
    answered(stack)
    stored(stack, run, rows=5, counted=5)
    assert letters(stack, "drop", remaining, "--yes").stdout == "dropped=1\n"


@pytest.mark.parametrize("moment", failpoints.REPLAY)
def test_a_replay_that_is_killed_and_repeated_stores_nothing_twice(
    stack: Stack, run: str, tmp_path: Path, moment: str
) -> None:
    name = next(names(stack, run))
    filters = Filters(reason="failed_capture")
    produce(
        stack.connection,
        *(
            dead(
                letter(OFFSET, number, "failed_capture"),
                frame(stack, name, f"m{number}", remembered=False),
            )
            for number in range(LETTERS)
        ),
    )
    assert len(found(stack, filters)) == LETTERS
    begun = captures_end(stack)
    command = ["dead-letters", "replay", "--reason", "failed_capture", "--yes"]
    environment = stack.environment | failpoints.environment(tmp_path)
    failpoints.arm(tmp_path, moment)
    killed = subprocess.run(
        [*OPENBAT, *command], env=environment, capture_output=True, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = len(found(stack, filters))
    sent = captures_end(stack) - begun
    # Nothing is dropped before its replay is acknowledged.
    assert LETTERS - left <= sent <= CHUNK_LETTERS
    if moment == "replay.dead-letters.before":
        assert (sent, left) == (CHUNK_LETTERS, LETTERS)

    done = letters(stack, *command[1:])
    assert done.stdout == f"replayed={left} refused=0\n"
    assert found(stack, filters) == []
    # Those that were replayed before the kill, though their letters were not dropped, come twice.
    assert captures_end(stack) - begun == sent + left
    answered(stack)
    stored(stack, run, rows=LETTERS, counted=LETTERS)


@contextlib.contextmanager
def statements(stack: Stack, before: str, after: str) -> Iterator[None]:
    """Run a statement of SQL, and at the end of the block one that takes it back."""
    url = stack.state["clickhouse_url"]
    httpx.post(url, content=before).raise_for_status()
    try:
        yield
    finally:
        httpx.post(url, content=after).raise_for_status()


def constraint(stack: Stack, condition: str) -> AbstractContextManager[None]:
    """Have ClickHouse refuse message rows that do not meet a condition."""
    alter = "ALTER TABLE openbat.message_rows"
    return statements(
        stack,
        f"{alter} ADD CONSTRAINT for_test CHECK {condition}",
        f"{alter} DROP CONSTRAINT for_test",
    )


def materialized_view(stack: Stack, expression: str) -> AbstractContextManager[None]:
    """Have ClickHouse evaluate an expression of each message row that is inserted."""
    return statements(
        stack,
        "CREATE MATERIALIZED VIEW openbat.for_test ENGINE = Memory AS "
        f"SELECT {expression} AS found FROM openbat.message_rows",
        "DROP TABLE openbat.for_test",
    )


def test_a_rejected_row_is_replayed_when_its_cause_is_gone(
    stack: Stack, demo: httpx.Client, run: str
) -> None:
    filters = Filters(reason="rejected_row", topic=topics.MESSAGES)
    # So long that of the error, cut where clickhouse-connect does by itself, no end would be left.
    long = "and on " * 1000
    contents = ("fine", f"forbidden {run}", "fine", f"forbidden {run} {long}", "fine")
    body = {
        "conversationId": f"{run}-0",
        "messages": [{"role": "user", "content": content} for content in contents],
    }
    with constraint(stack, f"NOT startsWith(content, 'forbidden {run}')"):
        assert demo.post("/api/v1/capture", json=body).json()["messagesStored"] == 5
        stored(stack, run, rows=3, counted=5)
        rejected = found(stack, filters)
        assert len(rejected) == 2
        named = "Constraint `for_test` for table openbat.message_rows"
        assert {each.letter.detail for each in rejected} == {
            f"DatabaseError: code 469, VIOLATED_CONSTRAINT, {named}"
        }
        # Counted from the record's first row, in which there may be other conversations before.
        first, second = (each.letter.source.index for each in rejected)
        assert second - first == 2
        replayed = letters(stack, "replay", "--reason", "rejected_row", "--yes")
        assert replayed.stdout == "replayed=2 refused=0\n"
        # It was too early: they come back, from where they were replayed to.
        wait_until(lambda: len(found(stack, filters)) == 2, 20, "the letters")
        assert not ids(found(stack, filters)) & ids(rejected)
    rejected = found(stack, filters)

    async def with_values() -> list[tuple[Listed, bytes]]:
        return [pair async for pair in values(stack.connection, rejected)]

    kept = asyncio.run(with_values())
    for _ in range(2):
        done = letters(stack, "replay", *ids(rejected))
        assert done.stdout == "replayed=2 refused=0\n"
        stored(stack, run, rows=5, counted=5)
        # As after a kill between the replay and the drop.
        for each, value in kept:
            asyncio.run(_put_back(stack.connection, each, value))
    assert letters(stack, "drop", *ids(rejected), "--yes").stdout == "dropped=2\n"


async def _put_back(connection: Connection, listed: Listed, value: bytes) -> None:
    producer = await start_producer(connection, sizes.BATCH)
    try:
        await producer.send_and_wait(
            topics.DEAD_LETTERS, value, key=listed.key, partition=listed.partition,
            headers=listed.letter.headers(),
        )  # fmt: skip
    finally:
        await producer.stop()


def change(run: str, number: int, fields: Fields, **values: Any) -> Change:
    """Return a change of a conversation of its own, with one message."""
    now = time.time_ns() // 1000
    conversation_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{run}-{number}").bytes
    state = ConversationState(
        bytes(16), conversation_id, f"{run}-{number}", now, 1, 1, now, now, now, now, fields
    )
    given = {"id": "m", "content": "fine", "sent_at": now, "position": 1, **values}
    message = NewMessage(role="user", received_at=now, **given)
    return Change(conversation_id, msgspec.Raw(encode(state)), msgspec.Raw(encode([message])))


def test_replaying_and_dropping_nothing_is_no_fault(stack: Stack) -> None:
    nothing = ("--until", "2001-01-01T00:00:00Z", "--yes")
    assert stack.openbat("dead-letters", "replay", *nothing).stdout == "replayed=0 refused=0\n"
    assert stack.openbat("dead-letters", "drop", *nothing).stdout == "dropped=0\n"


async def test_every_poison_row_of_a_batch_is_isolated_and_no_other(stack: Stack, run: str) -> None:
    rows = 2000
    # What the record's types refuse takes its whole change along; what ClickHouse does, one row.
    forbidden = {
        1: {"content": f"forbidden {run}"},
        1200: {"content": f"indivisible {run}"},
        1999: {"content": f"forbidden {run}"},
    }
    of_messages: dict[int, dict[str, Any]] = {
        0: {"position": -1},
        777: {"sent_at": 2**64 - 1},
    }
    of_conversations: dict[int, Fields] = {
        500: {"user": {"mrr": "a lot"}},
        501: {"user": {"id": 5}},
        502: {"organization": {"plan": {"a": 1}}},
        1500: {"session": {"device": True}},
    }
    changes = [
        change(
            run, number, of_conversations.get(number, {}),
            **of_messages.get(number, {}), **forbidden.get(number, {}),
        )
        for number in range(rows)
    ]  # fmt: skip
    client = await asyncio.to_thread(
        clickhouse_connect.get_client,
        dsn=stack.state["clickhouse_url"], autogenerate_session_id=False,
    )  # fmt: skip
    try:
        writer = ClickHouseWriter(client)
        batch = RowBatch()
        undecodable = batch.add(messages_codec.encode(changes), 0, 7)
        with (
            constraint(stack, f"NOT startsWith(content, 'forbidden {run}')"),
            materialized_view(stack, f"intDiv(1, content != 'indivisible {run}')"),
        ):
            rejected = await writer.write(batch)
    finally:
        client.close()
    without = of_messages.keys() | of_conversations.keys()
    # A change counts two rows, its conversation's and its message's; one that has none counts one.
    first_row = list(accumulate((1 if at in without else 2 for at in range(rows)), initial=0))
    assert [(each.letter.reason, each.letter.source.index) for each in undecodable] == [
        ("undecodable_output", first_row[number]) for number in sorted(without)
    ]
    assert [(each.letter.reason, each.letter.source.index) for each in rejected] == [
        ("rejected_row", first_row[number] + 1) for number in forbidden
    ]
    in_view = "ILLEGAL_DIVISION, pushing to view openbat.for_test"
    assert rejected[1].letter.detail == f"DatabaseError: code 153, {in_view}"
    like = f"WHERE external_conversation_id LIKE '{run}-%'"
    # ClickHouse has written a row before a materialized view fails on it.
    refused = forbidden.keys() - {1200}
    for view, lacking in (("messages", without | refused), ("conversations", without)):
        (found_rows,) = await asyncio.to_thread(
            stack.sql, f"SELECT count() AS rows FROM openbat.{view} {like}"
        )
        assert found_rows["rows"] == rows - len(lacking)


def test_a_topic_of_the_earlier_release_works_and_workers_count_letters(tmp_path: Path) -> None:
    with brokers(tmp_path) as (broker,):
        connection = broker.connection
        asyncio.run(_make_as_before(connection))
        asyncio.run(migrate_topics(connection, PARTITION + 1, replication_factor=1))
        headers = [("reason", b"format version 09 is not known"), *letter(5, 0).headers()[2:]]
        produce(
            connection,
            {"topic": topics.DEAD_LETTERS, "value": POISON, "headers": headers},
            {"topic": topics.CAPTURES, "value": b"\x09 no record"},
        )
        port = free_port()
        stack = Stack(
            tmp_path,
            {
                "OPENBAT_DATA_DIR": str(tmp_path),
                "OPENBAT_KAFKA_BOOTSTRAP": connection.bootstrap,
                "OPENBAT_METRICS_PORT": str(port),
            },
        )
        worker = [*OPENBAT, "worker", "conversations"]

        def counted() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
                return 'openbat_dead_letters_total{reason="undecodable_record"} 1.0' in text
            return False

        with process(worker, stack.environment, tmp_path / "worker.log"):
            wait_until(counted, 60, "the count")
            second = stack.openbat("worker", "conversations", check=False)
            assert second.returncode == 1
            assert "OPENBAT_METRICS_PORT" in second.stderr
        listed = letters(stack, "list").stdout.splitlines()
        assert [line.split()[:2] for line in listed[:2]] == [
            [f"captures/{PARTITION}/5/0@0", "other"],
            [f"captures/{PARTITION}/0/-1", "undecodable_record"],
        ]
        assert "format version 09 is not known" in listed[0]
        assert listed[2] == "2 dead letters: other 1, undecodable_record 1"
        assert letters(stack, "drop", "--all", "--yes").stdout == "dropped=2\n"
        assert asyncio.run(read(connection)) == []


async def _make_as_before(connection: Connection) -> None:
    """Make dead-letters as the first release did."""
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        config = {"cleanup.policy": "delete", "max.message.bytes": str(sizes.DEAD_LETTERS_TOPIC)}
        await admin.create_topics(
            [NewTopic(topics.DEAD_LETTERS, PARTITION + 1, 1, topic_configs=config)]
        )
    finally:
        await admin.close()
