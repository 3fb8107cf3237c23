"""The ClickHouse worker, against clickhouse-connect inserting the same rows as ready columns."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bench import data
from bench.contest import PARTITIONS, Backlog, Contestant, work_through
from bench.figures import Figure
from bench.run import BenchError, Run, say
from bench.servers import PEERS
from bench.worker import bare_worker, clients, of_records, ours
from openbat.clickhouse import clickhouse_client
from openbat.connection import Connection
from openbat.kafka import migrate_topics
from schemas import topics
from sinks.migrate import migrate
from sinks.rows import (
    CONVERSATION_COLUMNS,
    CONVERSATION_TABLE,
    MESSAGE_COLUMNS,
    MESSAGE_TABLE,
    RowBatch,
)
from sinks.writer import INSERT_SETTINGS
from streams.clickhouse import MAX_BATCH_ROWS
from tests.brokers import brokers
from tests.captures import read_partition
from tests.rows import rows
from tests.soak.workers import worker
from tests.stack import OPENBAT, free_port, process, wait_until

READY_SECONDS = 60.0
PEER = PEERS / "insert.py"


class Inserted(NamedTuple):
    """The comparison, its limit, and how many rows a capture makes."""

    figure: Figure
    limit: Figure
    rows_per_capture: float


def measure(run: Run, directory: Path, size: int) -> Inserted:
    """Compare rows per processor second, from Kafka until they are committed.

    Args:
        run: how long.
        directory: for what the processes write.
        size: captures a record.

    """
    with ExitStack() as exits:
        connection, apart = (
            exits.enter_context(brokers(directory / name))[0].connection for name in ("own", "bare")
        )
        for each in (connection, apart):
            asyncio.run(migrate_topics(each, PARTITIONS, replication_factor=1))
        with worker(connection, directory / "conversations") as conversations:
            conversations.wait_ready()
            asyncio.run(_process(connection, conversations.running.pid, run.captures, size))
        # It has ended: all that it wrote is there.
        values = asyncio.run(_changes(connection))
        url = f"http://127.0.0.1:{free_port()}"
        settings = {
            **os.environ,
            "OPENBAT_DATA_DIR": str(directory),
            "OPENBAT_KAFKA_BOOTSTRAP": connection.bootstrap,
            "OPENBAT_CLICKHOUSE_URL": url,
            "OPENBAT_CLICKHOUSE_PORT": url.rpartition(":")[2],
        }
        engine = [*OPENBAT, "local-clickhouse"]
        exits.enter_context(process(engine, settings, directory / "engine.log"))
        wait_until(lambda: _answers(url), READY_SECONDS, "ClickHouse")
        client = clickhouse_client(url)
        migrate(client)
        client.close()
        log = directory / "clickhouse.log"
        running = exits.enter_context(process([*OPENBAT, "worker", "clickhouse"], settings, log))
        wait_until(lambda: '"ready"' in log.read_text(), READY_SECONDS, "the ClickHouse worker")
        bare = exits.enter_context(
            bare_worker("clickhouse", apart, directory / "bare", OPENBAT_CLICKHOUSE_URL=url)
        )
        workers = ((connection, running.pid), (apart, bare))
        return asyncio.run(_contest(run, workers, url, values, directory))


async def _process(connection: Connection, pid: int, captures: int, size: int) -> None:
    """Have a worker make records of `messages` of captures."""
    async with clients(connection) as (producer, reader):
        backlog = of_records(data.frames("c", captures), size)
        await work_through(ours(reader, pid), backlog, producer)


async def _changes(connection: Connection) -> list[tuple[int, bytes]]:
    """Return the records of `messages`, with their partitions."""
    return [
        (partition, value)
        for partition in range(PARTITIONS)
        for _, value in await read_partition(connection, topics.MESSAGES, partition)
        if value is not None
    ]


async def _contest(
    run: Run,
    workers: tuple[tuple[Connection, int], tuple[Connection, int]],
    url: str,
    values: list[tuple[int, bytes]],
    directory: Path,
) -> Inserted:
    peer_name = "clickhouse-connect, ready-made columns"
    figure = Figure("ClickHouse worker", "rows/CPU-s", peer_name, 0.7, 0.9)
    limit = Figure(
        "ClickHouse worker, without Faust", "rows/CPU-s", peer_name, note="on a broker of its own"
    )
    ready = directory / "columns.msgpack"
    count = _write_columns(values, ready)
    backlog = Backlog([(partition, None, value) for partition, value in values], count)
    own, bare = workers
    async with (
        _working("ClickHouse worker", *own) as (contestant, producer),
        _working("ClickHouse worker without Faust", *bare) as (other, producer_of_other),
    ):
        # It found those that its rows were made from.
        await _until(contestant.progress, len(values))
        for at in range(-1, run.rounds):
            speed = await work_through(contestant, backlog, producer)
            without = await work_through(other, backlog, producer_of_other)
            peer = count / await asyncio.to_thread(_insert, url, ready)
            say(
                f"ClickHouse worker, round {at + 1}: {speed.cpu:,.0f} rows per CPU-second; "
                f"without Faust {without.cpu:,.0f}; ready-made columns {peer:,.0f}"
            )
            if at >= 0:
                figure.add(speed.cpu, peer)
                limit.add(without.cpu, peer)
    return Inserted(figure, limit, count / run.captures)


@asynccontextmanager
async def _working(
    name: str, connection: Connection, pid: int
) -> AsyncIterator[tuple[Contestant, AIOKafkaProducer]]:
    """Return a worker, whose progress is what it committed, and what writes its backlogs."""
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()

    async def committed() -> int:
        found = await admin.list_consumer_group_offsets(topics.CLICKHOUSE_GROUP)
        return sum(
            max(found[tp].offset, 0) for at in range(PARTITIONS)
            if (tp := TopicPartition(topics.MESSAGES, at)) in found
        )  # fmt: skip

    try:
        async with clients(connection) as (producer, _):
            yield Contestant(name, (pid,), topics.MESSAGES, committed), producer
    finally:
        await admin.close()


async def _until(committed: Callable[[], Awaitable[int]], wanted: int) -> None:
    """Wait until what the worker found at its start is committed."""
    end = time.monotonic() + READY_SECONDS
    while await committed() < wanted:
        if time.monotonic() > end:
            raise BenchError("the ClickHouse worker did not commit what it found")
        await asyncio.sleep(0.1)


def _insert(url: str, ready: Path) -> float:
    """Insert the columns; return the processor seconds that it took."""
    done = subprocess.run(
        [sys.executable, str(PEER), url, str(ready)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    return float(done.stdout)


def _write_columns(values: list[tuple[int, bytes]], path: Path) -> int:
    """Write the batches that the worker would insert, as columns; return how many rows."""
    inserts = []
    count = 0
    batch = RowBatch()
    for at, (partition, value) in enumerate(values):
        batch.add(value, partition, at)
        if batch.rows >= MAX_BATCH_ROWS or at + 1 == len(values):
            count += batch.rows
            inserts += [
                (table, columns, _columns(found.encoded, columns), INSERT_SETTINGS)
                for table, columns, found in (
                    (MESSAGE_TABLE, MESSAGE_COLUMNS, batch.messages),
                    (CONVERSATION_TABLE, CONVERSATION_COLUMNS, batch.conversations),
                )
            ]
            batch = RowBatch()
    path.write_bytes(msgspec.msgpack.encode(inserts))
    return count


def _columns(encoded: list[bytes], columns: Sequence[str]) -> list[tuple[object, ...]]:
    return list(zip(*(row.values() for row in rows(encoded, columns)), strict=True))


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ping").status_code == 200
    except httpx.HTTPError:
        return False
