"""The zombie, by construction: a worker that wakes and sends what it prepared long ago.

It is paused between processing a record and sending anything of it. The other worker takes its
partitions over and goes on in the same conversations. It wakes and writes to their changelog; that
is compacted, both workers are killed and lose their disks, and the tables that are then recovered
from it alone must equal the model.
"""

import asyncio
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import rocksdict
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from openbat.connection import Connection
from openbat.local.probe import wait_exact
from schemas import topics
from schemas.positions import POSITION_BYTES, capture_position
from schemas.records import ConversationState
from streams.entries import STATE, id_part, message_prefix, state_codec, state_key
from tests.crash import failpoints, oracle
from tests.crash.campaign import RECOVERY_SECONDS, clients_of, crash_stack, recovered
from tests.crash.clients import Clients
from tests.crash.faults import Cluster
from tests.stack import Stack, wait_until

MOMENT = "conversations.replies.before"
NOTICED_SECONDS = 30.0
ZOMBIES = 3
"""At most: one whose request was under way when it was paused ends of that before it can write."""
COMPACTED_SECONDS = 100.0
EAGERLY_COMPACTED = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.001",
    "segment.ms": "1000",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "0",
}
OFFSET_KEY = b"__faust\x00offset__"

Table = dict[bytes, Any]


class Seen(NamedTuple):
    """What the zombie case found; without `late_entries` it showed nothing."""

    deviations: list[str]
    late_entries: int
    entries: int


def run(directory: Path, seed: int) -> Seen:
    """Run the case in a directory of its own, which is left there where something deviates."""
    shutil.rmtree(directory, ignore_errors=True)
    with crash_stack(directory) as stack:
        cluster = Cluster(stack, directory / "failpoints", random.Random(seed))  # noqa: S311
        deviations, late_entries, wanted = asyncio.run(_run(cluster, seed))
        data_dir = stack.data_dir
    deviations += oracle.differences("table entry", wanted, recovered_table(data_dir))
    if not deviations:
        shutil.rmtree(directory)
    return Seen(deviations, late_entries, len(wanted))


async def _run(cluster: Cluster, seed: int) -> tuple[list[str], int, Table]:
    stack = cluster.stack
    async with await clients_of(stack, seed) as clients:
        await recovered(clients, time.monotonic())
        for _ in range(ZOMBIES):
            await _zombie(cluster, clients)
            if _second_writers(stack):
                break
        else:
            raise AssertionError("no zombie wrote late: each had ended before it could")
        await recovered(clients, time.monotonic())
        late_entries = await _compacted(stack.connection)
    expected = await oracle.expected_of(stack.connection)
    deviations = await oracle.check(stack, clients.journal, expected)
    before = stack.pids("conversations")
    for pid in before:
        cluster.lose_disk(pid)
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(
        wait_until,
        lambda: not set(before) & set(stack.pids("conversations")),
        NOTICED_SECONDS,
        "new workers",
    )
    await wait_exact(stack.connection, RECOVERY_SECONDS)
    return deviations, late_entries, table_of(expected)


async def _zombie(cluster: Cluster, clients: Clients) -> None:
    """Pause a worker until another one does its work, and let it go on to its end."""
    failpoints.arm(cluster.failpoints, MOMENT, "stop")
    zombie = await cluster.reached(MOMENT)
    await recovered(clients, time.monotonic())
    os.kill(zombie, signal.SIGCONT)
    await asyncio.to_thread(
        wait_until,
        lambda: zombie not in cluster.stack.pids("conversations"),
        NOTICED_SECONDS,
        "the zombie's end",
    )
    await recovered(clients, time.monotonic())


def _second_writers(stack: Stack) -> int:
    """Return how often a worker noticed that another one writes to its changelog."""
    logs = (stack.data_dir / "logs").glob("conversations-*.log")
    return sum(log.read_text().count("SecondWriterError") for log in logs)


async def _compacted(connection: Connection) -> int:
    """Let the broker compact what the changelog holds now; return how many records that took.

    Load must go on meanwhile: a segment is closed, and so compacted, when a later record comes.
    """
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        await admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC, topics.CONVERSATIONS_CHANGELOG, EAGERLY_COMPACTED
                )
            ]
        )
    finally:
        await admin.close()
    before = await oracle.read_topic(connection, topics.CONVERSATIONS_CHANGELOG)
    ends = {partition: records[-1].offset + 1 for partition, records in before.items()}
    async with asyncio.timeout(COMPACTED_SECONDS):
        while True:
            now = await oracle.read_topic(connection, topics.CONVERSATIONS_CHANGELOG)
            left = {
                partition: [record for record in records if record.offset < ends[partition]]
                for partition, records in now.items()
            }
            if all(_has_no_key_twice(records) for records in left.values()):
                kept: int = sum(map(len, left.values()))
                return sum(map(len, before.values())) - kept
            await asyncio.sleep(1)


def _has_no_key_twice(records: list[Any]) -> bool:
    return max(Counter(record.key for record in records).values(), default=0) < 2


def table_of(expected: oracle.Expected) -> Table:
    """Return what workers' tables must hold; of states, what the model knows."""
    table: Table = {}
    for (_, external_id), conversation in expected.model.conversations.items():
        frames = expected.frames[external_id]
        conversation_id = frames[0].captured.conversation_id
        remembered = {
            message.id
            for frame in frames
            for message in frame.captured.messages
            if message.remembered
        }
        for message in conversation.messages:
            if message.id in remembered:
                generation, offset, capture, index = message.place
                position = capture_position(generation, offset, capture) + index
                key = message_prefix(conversation_id) + id_part(message.id)
                table[key] = position.to_bytes(POSITION_BYTES)
        table[state_key(conversation_id)] = (
            external_id,
            len(conversation.messages),
            min(message.sent_at for message in conversation.messages),
            max(message.sent_at for message in conversation.messages),
            conversation.fields,
        )
    return table


def recovered_table(data_dir: Path) -> Table:
    """Return what stopped workers' tables hold; of a partition that two have, the newest."""
    newest: dict[str, tuple[int, Path]] = {}
    for path in data_dir.glob("workers/conversations-*/*/tables/*.db"):
        offset = int(dict(_items(path)).get(OFFSET_KEY, b"-1"))
        newest[path.name] = max(newest.get(path.name, (-2, path)), (offset, path))
    table: Table = {}
    for _, path in newest.values():
        for key, value in _items(path):
            if key != OFFSET_KEY:
                table[key] = _known(state_codec.decode(value[8:])) if key[:1] == STATE else value
    return table


def _known(state: ConversationState) -> tuple[Any, ...]:
    return (
        state.external_id,
        state.message_count,
        state.first_message_at,
        state.last_message_at,
        state.fields,
    )


def _items(path: Path) -> list[tuple[bytes, bytes]]:
    database = rocksdict.Rdict(
        str(path), rocksdict.Options(raw_mode=True), access_type=rocksdict.AccessType.read_only()
    )
    try:
        return list(database.items())
    finally:
        database.close()
