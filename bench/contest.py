"""Processes that read a topic and write another, measured while they work through a backlog."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.meter import Meter
from bench.run import BenchError
from openbat.connection import Connection
from schemas import sizes

PARTITIONS = 4
STILL_SECONDS = 60.0
TICK_SECONDS = 0.01
"""What processor time is counted in."""
SENT_AT_ONCE = 1_000
IDLE_SHARE, IDLE_SECONDS = 0.05, 3.0
"""Of a processor: what an idle worker takes at most, and for how long that is looked at."""
MOST_WAITS = 100


async def make_topics(connection: Connection, names: list[str]) -> None:
    """Make topics of a peer's own."""
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        config = {"max.message.bytes": str(sizes.TOPIC)}
        await admin.create_topics(
            [NewTopic(name, PARTITIONS, 1, topic_configs=config) for name in names]
        )
    finally:
        await admin.close()


class Backlog(NamedTuple):
    """Records for a process: of each its partition, key and value; and how many captures."""

    records: Sequence[tuple[int, bytes | None, bytes]]
    captures: int


class Speed(NamedTuple):
    """Captures per processor second, and per second on the clock."""

    cpu: float
    wall: float


class Contestant(NamedTuple):
    """Processes of one kind, what they read, and how many records they are through with so far."""

    name: str
    pids: tuple[int, ...]
    source: str
    progress: Callable[[], Awaitable[int]]


def written_to(
    reader: AIOKafkaConsumer, tps: Sequence[TopicPartition]
) -> Callable[[], Awaitable[int]]:
    """Return the progress of what writes a record to these partitions per record that it reads."""

    async def progress() -> int:
        return sum((await reader.end_offsets(tps)).values())

    return progress


async def work_through(
    contestant: Contestant, backlog: Backlog, producer: AIOKafkaProducer
) -> Speed:
    """Have a process work through a backlog that is all there when it begins.

    It is paused while the records are written, so that it finds them all at once.

    Raises:
        BenchError: it got no further.

    """
    before = await contestant.progress()
    for pid in contestant.pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await _write(contestant.source, backlog, producer)
        meter = Meter(*contestant.pids)
    finally:
        for pid in contestant.pids:
            os.kill(pid, signal.SIGCONT)
    wanted = before + len(backlog.records)
    seen, at = before, time.monotonic()
    while seen < wanted:
        await asyncio.sleep(0.02)
        found = await contestant.progress()
        if found != seen:
            seen, at = found, time.monotonic()
        elif time.monotonic() - at > STILL_SECONDS:
            raise BenchError(
                f"{contestant.name} stands still at {seen - before} of {wanted - before}"
            )
    return Speed(backlog.captures / max(meter.cpu(), TICK_SECONDS), backlog.captures / meter.wall())


async def idle(contestant: Contestant) -> None:
    """Wait until a process has done what it put off, such as RocksDB's compactions.

    Raises:
        BenchError: it never comes to rest.

    """
    for _ in range(MOST_WAITS):
        meter = Meter(*contestant.pids)
        await asyncio.sleep(IDLE_SECONDS)
        if meter.cpu() < IDLE_SHARE * meter.wall():
            return
    raise BenchError(f"{contestant.name} has nothing to do, and does not come to rest")


async def _write(topic: str, backlog: Backlog, producer: AIOKafkaProducer) -> None:
    records = backlog.records
    for start in range(0, len(records), SENT_AT_ONCE):
        sent = [
            await producer.send(topic, value, key=key, partition=partition)
            for partition, key, value in records[start : start + SENT_AT_ONCE]
        ]
        await asyncio.gather(*sent)
