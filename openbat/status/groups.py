"""Looks at the workers' consumer groups through Kafka; joins none, and changes nothing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from openbat.connection import Connection
from openbat.kafka import TopicsError
from openbat.status.seen import GROUPS, READS, Role, RoleSeen, TopicSeen
from schemas import sizes

OLDEST_SECONDS = 2.0
"""How long the oldest records that are not committed may take to read; what is late has no age."""
REQUEST_MILLISECONDS = 5000
RETRY_SECONDS = 0.2

Offsets = Mapping[TopicPartition, int]


async def look_at_roles(connection: Connection) -> list[RoleSeen]:
    """Return the groups of all roles.

    Raises:
        TopicsError: the topics are not there.
        UnreachableError, KafkaError: Kafka can't be reached, or refuses.

    """
    async with _clients(connection) as (admin, consumer):
        partitions = await _partitions(admin)
        sources = [
            TopicPartition(topic, number)
            for topics in READS.values()
            for topic in topics
            for number in range(partitions[topic])
        ]
        first = await consumer.beginning_offsets(sources)
        # Before the positions, so that none is past an end that was asked for later.
        ends = await consumer.end_offsets(sources)
        groups = await _patiently(admin)
        reached = {
            source: max(first[source], offset)
            for role, (_, committed) in groups.items()
            for source, offset in ((each, committed.get(each, 0)) for each in _sources(role, ends))
        }
        oldest = await _oldest(
            consumer, {source: at for source, at in reached.items() if at < ends[source]}
        )
    return [
        _role(role, described, bool(committed), reached, ends, oldest)
        for role, (described, committed) in groups.items()
    ]


def _sources(role: Role, ends: Offsets) -> list[TopicPartition]:
    return [source for source in ends if source.topic in READS[role]]


@contextlib.asynccontextmanager
async def _clients(
    connection: Connection,
) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    options = {**connection.options(), "request_timeout_ms": REQUEST_MILLISECONDS}
    admin = AIOKafkaAdminClient(**options)
    # One record of each partition is wanted, and a broker sends at least one of the first.
    consumer = AIOKafkaConsumer(
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=64 * sizes.KIB,
        fetch_max_wait_ms=100,
        **options,
    )
    try:
        async with connection.reaching():
            await admin.start()
            await consumer.start()
        yield admin, consumer
    finally:
        await consumer.stop()
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Return how many partitions each topic has that a role reads."""
    described = {found["topic"]: found for found in await admin.describe_topics()}
    try:
        return {
            topic: len(described[topic]["partitions"])
            for topics in READS.values()
            for topic in topics
        }
    except KeyError as missing:
        raise TopicsError(
            f"the topic {missing.args[0]} is not there yet: run `openbat migrate`"
        ) from None


async def _patiently(
    admin: AIOKafkaAdminClient,
) -> dict[Role, tuple[dict[str, Any], dict[TopicPartition, int]]]:
    """Return each group's description and its committed positions.

    A group's coordinator may just be moving, and a new cluster has none at first.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(
            (
                GroupCoordinatorNotAvailableError,
                GroupLoadInProgressError,
                NotCoordinatorForGroupError,
            )
        ),
        wait=wait_fixed(RETRY_SECONDS),
    ):
        with attempt:
            return {role: await _group(admin, group) for role, group in GROUPS.items()}
    raise AssertionError("unreachable")


async def _group(
    admin: AIOKafkaAdminClient, group: str
) -> tuple[dict[str, Any], dict[TopicPartition, int]]:
    (answer,) = await admin.describe_consumer_groups([group])
    (described,) = answer.to_object()["groups"]
    if described["error_code"]:
        raise for_code(described["error_code"])(f"group {group}")
    committed = await admin.list_consumer_group_offsets(group)
    return described, {source: found.offset for source, found in committed.items()}


async def _oldest(consumer: AIOKafkaConsumer, positions: Offsets) -> dict[str, float]:
    """Return for each topic the time, in seconds, of the oldest record at these positions.

    A topic of which a partition does not answer in time is left out: its oldest is not known.
    """
    if not positions:
        return {}
    consumer.assign(list(positions))
    for source, position in positions.items():
        consumer.seek(source, position)
    found: dict[TopicPartition, float] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(OLDEST_SECONDS):
            while missing := [source for source in positions if source not in found]:
                for source, records in (
                    await consumer.getmany(*missing, timeout_ms=200, max_records=1)
                ).items():
                    found[source] = records[0].timestamp / 1000
    oldest: dict[str, float] = {}
    for source, at in found.items():
        oldest[source.topic] = min(at, oldest.get(source.topic, at))
    unknown = {source.topic for source in positions if source not in found}
    return {topic: at for topic, at in oldest.items() if topic not in unknown}


def _role(
    role: Role,
    described: Mapping[str, Any],
    was_there: bool,
    reached: Offsets,
    ends: Offsets,
    oldest: Mapping[str, float],
) -> RoleSeen:
    read = assigned(member["member_assignment"] for member in described["members"])
    now = time.time()
    found = []
    for topic in READS[role]:
        sources = [source for source in ends if source.topic == topic]
        lag = sum(max(0, ends[source] - reached[source]) for source in sources)
        seconds = max(0.0, now - oldest[topic]) if topic in oldest else None
        found.append(TopicSeen(topic, len(sources), len(read.intersection(sources)), lag, seconds))
    return RoleSeen(
        role, described["group"], described["state"], len(described["members"]), was_there, found
    )


def assigned(assignments: Iterable[bytes]) -> set[TopicPartition]:
    """Return the partitions that members have; one that is just joining has none."""
    return {
        source
        for encoded in assignments
        if encoded
        for source in ConsumerProtocolMemberAssignment.decode(encoded).partitions()
    }
