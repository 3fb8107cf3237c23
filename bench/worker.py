"""The conversations worker, against Quix Streams and against a bare loop doing the same job."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench import data
from bench.contest import (
    PARTITIONS,
    Backlog,
    Contestant,
    Speed,
    make_topics,
    work_through,
    written_to,
)
from bench.figures import Figure, Reading
from bench.run import BenchError, Run, say
from bench.servers import PEERS, PEERS_PYTHON
from openbat.connection import Connection
from openbat.kafka import make_reader, migrate_topics, start_producer
from schemas import sizes, topics
from tests.brokers import brokers
from tests.soak.workers import worker
from tests.stack import process

SIZES = (1, 4, 8, 16, 32)
"""Captures a record."""
OUTPUTS = ("messages", "analysis", "replies")
OURS, QUIX, LOOP, BARE = "ours", "quix", "loop", "bare"


@asynccontextmanager
async def clients(
    connection: Connection,
) -> AsyncIterator[tuple[AIOKafkaProducer, AIOKafkaConsumer]]:
    """Return what writes backlogs, and what sees how far somebody is.

    Raises BenchError at the end, where something became a dead letter.
    """
    producer = await start_producer(connection, sizes.BATCH)
    reader = make_reader(connection)
    try:
        await reader.start()
        yield producer, reader
        letters = [TopicPartition(topics.DEAD_LETTERS, at) for at in range(PARTITIONS)]
        if any((await reader.end_offsets(letters)).values()):
            raise BenchError("not everything could be processed: there are dead letters")
    finally:
        await reader.stop()
        await producer.stop()


def ours(reader: AIOKafkaConsumer, *pids: int) -> Contestant:
    """Return our workers as a contestant: they reply once per record."""
    own = TopicPartition(topics.REPLIES, data.REPLY_PARTITION)
    return Contestant("conversations worker", pids, topics.CAPTURES, written_to(reader, [own]))


@contextmanager
def bare_worker(
    role: str, connection: Connection, directory: Path, **environment: str
) -> Iterator[int]:
    """Run a worker's own lines without Faust, on topics that no worker of ours reads."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
        **os.environ,
        "OPENBAT_DATA_DIR": str(directory),
        "OPENBAT_KAFKA_BOOTSTRAP": connection.bootstrap,
        **environment,
    }
    command = [sys.executable, "-m", "bench.bare_worker", role]
    with process(command, settings, directory / "log") as running:
        yield running.pid


def peer(reader: AIOKafkaConsumer, name: str, pid: int) -> Contestant:
    """Return a peer as a contestant."""
    own = [TopicPartition(f"{name}-replies", at) for at in range(PARTITIONS)]
    return Contestant(name, (pid,), f"{name}-captures", written_to(reader, own))


@contextmanager
def peer_process(name: str, connection: Connection, directory: Path) -> Iterator[int]:
    """Run a peer, which reads `NAME-captures` and writes `NAME-messages` and so on."""
    asyncio.run(make_topics(connection, [f"{name}-{topic}" for topic in ("captures", *OUTPUTS)]))
    environment = {
        "BOOTSTRAP": connection.bootstrap,
        "STATE_DIR": str(directory / name),
        "PATH": "/usr/bin:/bin",
    }
    script = PEERS / f"{name}_worker.py"
    log = directory / f"{name}.log"
    with process([str(PEERS_PYTHON), str(script)], environment, log) as running:
        yield running.pid


def measure(run: Run, directory: Path, judged_size: float) -> tuple[list[Figure], list[Reading]]:
    """Compare captures per processor second.

    Args:
        run: how long.
        directory: for what the processes write.
        judged_size: captures a record at saturation, as the whole stack made them.

    """
    with ExitStack() as exits:
        # A broker of its own for what writes the same topics.
        connection, apart = (
            exits.enter_context(brokers(directory / name))[0].connection for name in (OURS, BARE)
        )
        for each in (connection, apart):
            asyncio.run(migrate_topics(each, PARTITIONS, replication_factor=1))
        conversations = exits.enter_context(worker(connection, directory / "worker"))
        pids = {
            name: exits.enter_context(peer_process(name, connection, directory))
            for name in (QUIX, LOOP)
        }
        pids[BARE] = exits.enter_context(bare_worker("conversations", apart, directory / "bare"))
        conversations.wait_ready()
        pids[OURS] = conversations.running.pid
        return asyncio.run(_contest(run, connection, apart, pids, judged_size))


def nearest(size: float) -> int:
    """Return the size that is measured and nearest to this one."""
    return min(SIZES, key=lambda each: abs(each - size))


async def _contest(
    run: Run, connection: Connection, apart: Connection, pids: dict[str, int], judged_size: float
) -> tuple[list[Figure], list[Reading]]:
    judged = nearest(judged_size)
    name = f"conversations worker, {judged} captures a record"
    note = f"the whole stack made {judged_size:.1f} captures a record at saturation"
    figures = [
        Figure(name, "captures/CPU-s", "Quix Streams, a capture a record", 1.0, 1.5, note=note),
        Figure(name, "captures/CPU-s", "bare aiokafka loop with a dict", 0.5, 0.8, note=note),
        Figure(
            f"{name}, without Faust", "captures/CPU-s", "bare aiokafka loop with a dict",
            note="on a broker of its own; its table gets a backlog a round, ours one of each size",
        ),
    ]  # fmt: skip
    found: dict[int, list[Speed]] = {size: [] for size in SIZES}
    async with (
        clients(connection) as (producer, reader),
        clients(apart) as (other, reader_of_other),
    ):
        own = ours(reader, pids[OURS])
        bare = ours(reader_of_other, pids[BARE])._replace(name="conversations worker without Faust")
        quix, loop = (peer(reader, name, pids[name]) for name in (QUIX, LOOP))

        async def take(
            contestant: Contestant, backlog: Backlog, to: AIOKafkaProducer = producer
        ) -> Speed:
            speed = await work_through(contestant, backlog, to)
            say(f"{contestant.name}: {speed.cpu:,.0f} captures per CPU-second")
            return speed

        for at in range(-1, run.rounds):
            captures = data.frames(f"w{at}", run.captures)
            speeds = {
                size: await take(own, of_records(data.frames(f"w{at}-{size}", run.captures), size))
                for size in SIZES
            }
            of_quix = await take(quix, of_frames(captures))
            of_loop = await take(loop, of_records(captures, judged))
            of_bare = await take(bare, of_records(captures, judged), other)
            if at < 0:
                continue
            for size, speed in speeds.items():
                found[size].append(speed)
            figures[0].add(speeds[judged].cpu, of_quix.cpu)
            figures[1].add(speeds[judged].cpu, of_loop.cpu)
            figures[2].add(of_bare.cpu, of_loop.cpu)
    readings = [
        Reading(
            f"conversations worker, {size} captures a record",
            sorted(speed.cpu for speed in speeds)[len(speeds) // 2],
            "captures/CPU-s",
        )
        for size, speeds in found.items()
    ]
    return figures, readings


def of_records(captures: list[data.Frame], size: int) -> Backlog:
    made = data.records(captures, PARTITIONS, size)
    return Backlog([(partition, None, value) for partition, value in made], len(captures))


def of_frames(captures: list[data.Frame]) -> Backlog:
    """Return a backlog of a record per capture, keyed by its conversation."""
    return Backlog(
        [
            (topics.partition_of(conversation_id, PARTITIONS), conversation_id, frame)
            for conversation_id, frame in captures
        ],
        len(captures),
    )
