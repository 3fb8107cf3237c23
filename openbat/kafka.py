"""Kafka clients, topics and the registry's writer."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidProducerEpoch,
    ProducerFenced,
    TopicAlreadyExistsError,
    for_code,
)

from gateway.registry import Registry, read_to_end
from openbat.connection import Connection
from schemas import sizes, topics
from schemas.chatbots import GENERATION_KEY, Generation, generation_codec
from schemas.positions import MAX_GENERATION

Entries = list[tuple[bytes, bytes | None]]

REGISTRY_WRITER = "openbat-registry"
WRITE_ATTEMPTS = 5

REQUEST_SECONDS = 10.0
"""How long a request to a broker may take. After it the connection is given up and made anew: this
is how one is noticed that is open but dead."""


class TopicsError(Exception):
    """Raised when the topics are not, and can't be made, as they must be; says what to do."""


async def start_producer(
    connection: Connection, batch_bytes: int, **options: Any
) -> AIOKafkaProducer:
    """Return a started idempotent producer that waits for every in-sync replica."""
    producer = AIOKafkaProducer(
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        request_timeout_ms=int(REQUEST_SECONDS * 1000),
        max_batch_size=batch_bytes,
        max_request_size=sizes.PRODUCER_REQUEST,
        **connection.options(),
        **options,
    )
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


def make_reader(
    connection: Connection, isolation_level: str = "read_uncommitted"
) -> AIOKafkaConsumer:
    """Return a consumer without a group, whose partitions are assigned by hand."""
    return AIOKafkaConsumer(
        isolation_level=isolation_level,
        auto_offset_reset="latest",
        enable_auto_commit=False,
        request_timeout_ms=int(REQUEST_SECONDS * 1000),
        max_partition_fetch_bytes=sizes.TOPIC,
        **connection.options(),
    )


async def captures_partitions(connection: Connection) -> int:
    """Return how many partitions captures has.

    Raises:
        TopicsError: the topics are not there.
        UnreachableError: Kafka can't be reached.

    """
    found = await _partitions(connection)
    if topics.CAPTURES not in found:
        raise TopicsError("the topics are not there yet: run `openbat migrate`")
    return found[topics.CAPTURES]


async def migrate_topics(
    connection: Connection, partitions: int, replication_factor: int
) -> list[str]:
    """Make the topics that are missing; return their names.

    Raises:
        TopicsError: a topic has another partition count, or the cluster has too few brokers.
        UnreachableError: Kafka can't be reached.

    """
    found = await _partitions(connection)
    wanted = {topic.name: topic.partitions or partitions for topic in topics.TOPICS}
    for name, count in found.items():
        if name in wanted and count != wanted[name]:
            raise TopicsError(
                f"topic {name} has {count} partitions, not {wanted[name]}: the topics and the "
                "table are co-partitioned, so the count is chosen once. Set OPENBAT_PARTITIONS "
                f"to {found.get(topics.CAPTURES, count)}"
            )
    missing = [topic for topic in topics.TOPICS if topic.name not in found]
    durable = {
        "min.insync.replicas": str(max(1, replication_factor - 1)),
        "unclean.leader.election.enable": "false",
    }
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        answer = await admin.create_topics(
            [
                NewTopic(
                    topic.name, wanted[topic.name], replication_factor,
                    topic_configs={**topic.config, **durable},
                )
                for topic in missing
            ]
        )  # fmt: skip
    finally:
        await admin.close()
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if error.errno and error is not TopicAlreadyExistsError:
            raise TopicsError(
                f"topic {name} can't be made: {message[0] if message else error.description}. "
                "OPENBAT_REPLICATION_FACTOR says how many brokers each topic needs; 3 is what "
                "keeps data when a machine is lost, 1 is for a single broker"
            )
    if any(topic.name == topics.CAPTURES for topic in missing):
        await edit_registry(connection, _next_generation)
    return [topic.name for topic in missing]


async def edit_registry(connection: Connection, change: Callable[[Registry], Entries]) -> Entries:
    """Change the registry; no two changes overlap, and none is lost.

    Writers share a transactional id: whoever comes later fences the earlier one out, and reads
    the registry to its end inside the fence, so it sees all that was ever written.

    Args:
        connection: to Kafka.
        change: returns the entries to write for the registry as it is; may be called again.

    Returns:
        The entries that were written.

    Raises:
        KafkaError: the registry could not be written.
        UnreachableError: Kafka can't be reached.

    """
    for attempt in range(WRITE_ATTEMPTS):
        try:
            async with connection.reaching():
                return await _edit_once(connection, change)
        except (ProducerFenced, InvalidProducerEpoch):
            if attempt + 1 == WRITE_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def read_registry(connection: Connection) -> Registry:
    """Return the registry as it is now. Raises UnreachableError where Kafka can't be reached."""
    registry = Registry()
    consumer = make_reader(connection, "read_committed")
    try:
        async with connection.reaching():
            await consumer.start()
        await read_to_end(consumer, registry)
    finally:
        await consumer.stop()
    return registry


async def _edit_once(connection: Connection, change: Callable[[Registry], Entries]) -> Entries:
    producer = await start_producer(connection, sizes.BATCH, transactional_id=REGISTRY_WRITER)
    try:
        async with producer.transaction():
            entries = change(await read_registry(connection))
            sent = [
                await producer.send(topics.CHATBOTS, value, key=key, partition=0)
                for key, value in entries
            ]
            await asyncio.gather(*sent)
        return entries
    finally:
        await producer.stop()


def _next_generation(registry: Registry) -> Entries:
    generation = registry.generation + 1
    if generation > MAX_GENERATION:
        raise TopicsError(f"captures was made anew {MAX_GENERATION} times: no position is left")
    return [(GENERATION_KEY, generation_codec.encode(Generation(generation)))]


async def _partitions(connection: Connection) -> dict[str, int]:
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with connection.reaching():
            await admin.start()
        described = await admin.describe_topics()
    finally:
        await admin.close()
    return {topic["topic"]: len(topic["partitions"]) for topic in described}
