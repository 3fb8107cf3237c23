"""Reads dead letters: which there are, and what they hold."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from openbat.connection import Connection
from openbat.dead_letters.listed import Letters, Listed
from openbat.kafka import captures_partitions, make_reader
from schemas import topics


class LettersReader:
    """Knows the letters that are there; each read goes on where the one before it ended.

    So whoever looks again and again reads the topic once, and a read that is cancelled is not lost.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._letters = Letters()
        self._next: dict[int, int] = {}

    async def read(self) -> list[Listed]:
        """Return all letters that are there now, oldest first."""
        partitions = range(await captures_partitions(self._connection))
        sources = [TopicPartition(topics.DEAD_LETTERS, partition) for partition in partitions]
        async with _reading(self._connection) as consumer:
            first = await consumer.beginning_offsets(sources)
            end = await consumer.end_offsets(sources)
            if any(self._next.get(source.partition, 0) > end[source] for source in sources):
                # The topic was made anew.
                self._letters, self._next = Letters(), {}
            spans = {
                source.partition: (
                    max(first[source], self._next.get(source.partition, 0)),
                    end[source],
                )
                for source in sources
            }
            async for record in _records(consumer, spans):
                self._letters.apply(record)
                self._next[record.partition] = record.offset + 1
        return self._letters.all()


async def read(connection: Connection) -> list[Listed]:
    """Return all letters that are there now, oldest first."""
    return await LettersReader(connection).read()


async def values(
    connection: Connection, letters: Iterable[Listed]
) -> AsyncIterator[tuple[Listed, bytes]]:
    """Yield letters with their values, a partition's in order; not those that are gone."""
    wanted = {(listed.partition, listed.offset): listed for listed in letters}
    spans: dict[int, tuple[int, int]] = {}
    for partition, offset in wanted:
        first, end = spans.get(partition, (offset, offset + 1))
        spans[partition] = min(first, offset), max(end, offset + 1)
    async with _reading(connection) as consumer:
        async for record in _records(consumer, spans):
            listed = wanted.get((record.partition, record.offset))
            if listed is not None:
                yield listed, record.value


@contextlib.asynccontextmanager
async def _reading(connection: Connection) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = make_reader(connection)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def _records(
    consumer: AIOKafkaConsumer, spans: Mapping[int, tuple[int, int]]
) -> AsyncIterator[Any]:
    """Yield the records of partitions, each from an offset up to another."""
    sources = {TopicPartition(topics.DEAD_LETTERS, of): span for of, span in spans.items()}
    consumer.assign(list(sources))
    for source, (first, _) in sources.items():
        consumer.seek(source, first)
    # Not by counting: compaction leaves gaps.
    while [source for source, (_, end) in sources.items() if await consumer.position(source) < end]:
        for source, records in (await consumer.getmany(timeout_ms=100)).items():
            for record in records:
                if record.offset < sources[source][1]:
                    yield record
