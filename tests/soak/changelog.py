"""A changelog as workers would have written it, produced straight into the topic."""

from collections.abc import Iterator
from uuid import UUID

from openbat.connection import Connection
from openbat.kafka import captures_partitions, start_producer
from schemas import sizes, topics
from schemas.records import Captured
from streams.apply import apply_record
from tests.captures import captured
from tests.property.worker import Table

CHATBOT = UUID(int=4)
CAPTURES, IDS = 3, 2
"""Of each conversation, and of each capture: 8 entries a conversation."""
GENERATION = 0
"""Before any that captures have, so that all of it lies before what a test captures."""

Entry = tuple[bytes, bytes | None]


def conversation(number: int, capture: int, remember_days: int = 0) -> Captured:
    """Return one of a conversation's captures."""
    ids = [f"{capture}-{at}" for at in range(IDS)]
    return captured(CHATBOT, f"conversation-{number}", 10**15 + number, ids, remember_days)


def entries(number: int) -> Iterator[Entry]:
    """Return the changelog entries of a conversation."""
    table: Table = {}
    for capture in range(CAPTURES):
        offset = number * CAPTURES + capture
        applied = apply_record([conversation(number, capture)], GENERATION, offset, table)
        table |= applied.local
        yield from applied.changelog


async def fill(connection: Connection, count: int) -> int:
    """Write at least so many entries, of all partitions; return of how many conversations."""
    partitions = await captures_partitions(connection)
    producer = await start_producer(connection, sizes.CHANGELOG_BATCH)
    builders = [producer.create_batch() for _ in range(partitions)]
    sent = []

    async def send(partition: int) -> None:
        builders[partition].close()
        sent.append(
            await producer.send_batch(
                builders[partition], topics.CONVERSATIONS_CHANGELOG, partition=partition
            )
        )
        builders[partition] = producer.create_batch()

    number = written = 0
    try:
        while written < count:
            made = list(entries(number))
            conversation_id = conversation(number, 0).conversation_id
            partition = topics.partition_of(conversation_id, partitions)
            for key, value in made:
                if builders[partition].append(key=key, value=value, timestamp=None) is None:
                    await send(partition)
                    builders[partition].append(key=key, value=value, timestamp=None)
            written += len(made)
            number += 1
        for partition in range(partitions):
            await send(partition)
        for acknowledged in sent:
            await acknowledged
    finally:
        await producer.stop()
    return number
