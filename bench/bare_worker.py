"""A worker's own lines in a bare aiokafka loop: what its job takes without Faust.

`python -m bench.bare_worker ROLE`, with the settings of `openbat worker ROLE`. It has every
partition, and survives nothing: neither a rebalance nor a restart.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.contest import PARTITIONS
from openbat.clickhouse import clickhouse_client
from openbat.connection import Connection, connection_of
from openbat.garbage import collect_rarely
from openbat.kafka import start_producer
from openbat.metrics import Metrics
from openbat.settings import Settings, load
from openbat.worker_role import GULPS_IN_FLIGHT
from schemas import sizes, topics
from sinks.rows import RowBatch
from sinks.writer import ClickHouseWriter
from streams.app import FETCH_BYTES, exit_now
from streams.clickhouse import ClickHouseAgent
from streams.conversations import ConversationsAgent
from streams.dead_letters import DeadLetters
from streams.lanes import Lanes, Received
from streams.sweep import Sweeper
from streams.window import Windows
from tests.unit.tables import open_table

COMMIT_SECONDS = 1.0


class Role(NamedTuple):
    """What is read, by whom, and what takes it in."""

    topic: str
    group: str
    process: Callable[[int, Received], Awaitable[None]]


async def conversations(settings: Settings, connection: Connection) -> Role:
    producer = await start_producer(connection, sizes.CHANGELOG_BATCH)
    table = open_table(
        settings.data_dir,
        partitions=PARTITIONS,
        cache_bytes=settings.table_cache_mebibytes * sizes.MIB,
    )
    windows = Windows(GULPS_IN_FLIGHT, exit_now)
    dead_letters = DeadLetters(producer, Metrics().dead_letter)
    agent = ConversationsAgent(table, producer, dead_letters, windows, Sweeper(table))
    lanes = Lanes(agent.process, exit_now)
    return Role(topics.CAPTURES, topics.CONVERSATIONS_GROUP, lanes.put)


async def clickhouse(settings: Settings, connection: Connection) -> Role:
    producer = await start_producer(connection, sizes.CHANGELOG_BATCH)
    writer = ClickHouseWriter(clickhouse_client(settings.clickhouse_url))
    dead_letters = DeadLetters(producer, Metrics().dead_letter)
    agent = ClickHouseAgent[RowBatch](topics.MESSAGES, RowBatch, writer, dead_letters)
    asyncio.get_running_loop().create_task(agent.run()).add_done_callback(_ended)
    return Role(topics.MESSAGES, topics.CLICKHOUSE_GROUP, agent.process)


def _ended(task: asyncio.Task[None]) -> None:
    exit_now(task.exception() or RuntimeError("nothing writes batches any more"))


ROLES = {"conversations": conversations, "clickhouse": clickhouse}


async def main(name: str) -> None:
    settings = load()
    collect_rarely()
    connection = connection_of(settings)
    role = await ROLES[name](settings, connection)
    consumer = AIOKafkaConsumer(
        role.topic,
        group_id=role.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES,
        **connection.options(),
    )
    await consumer.start()
    done: dict[TopicPartition, int] = {}
    committing = asyncio.create_task(_commit(consumer, done))
    committing.add_done_callback(_ended)
    while True:
        for tp, records in (await consumer.getmany(timeout_ms=1000)).items():
            for record in records:
                ack = partial(done.__setitem__, tp, record.offset + 1)
                await role.process(
                    tp.partition, Received(record.offset, record.value or b"", ack, record.headers)
                )


async def _commit(consumer: AIOKafkaConsumer, done: dict[TopicPartition, int]) -> None:
    """Commit now and then what is acked."""
    while True:
        await asyncio.sleep(COMMIT_SECONDS)
        if done:
            reached = dict(done)
            done.clear()
            await consumer.commit(reached)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
