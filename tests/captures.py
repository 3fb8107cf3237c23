"""Captures written straight to the log, with receive times of the test's own, and their answers."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID, uuid5

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from openbat.connection import Connection
from openbat.kafka import captures_partitions, make_reader, start_producer
from schemas import sizes, topics
from schemas.records import (
    Captured,
    CapturedMessage,
    CapturesRecord,
    captures_codec,
    encode,
    replies_codec,
)

REPLY_PARTITION = 30
ANSWER_SECONDS = 60.0


def captured(
    chatbot_id: UUID, name: str, received_at: int, ids: Iterable[str], remember_days: int = 0
) -> Captured:
    """Return a capture of a conversation, as a gateway makes it."""
    messages = [CapturedMessage(message_id, "user", "hi", received_at, True) for message_id in ids]
    return Captured(
        chatbot_id.bytes, uuid5(chatbot_id, name).bytes, name, received_at, False, messages, {},
        remember_days,
    )  # fmt: skip


class Log:
    """Writes records of captures and reads what the workers reply."""

    def __init__(
        self, producer: AIOKafkaProducer, replies: AIOKafkaConsumer, partitions: int
    ) -> None:
        self._producer = producer
        self._replies = replies
        self._answers: dict[tuple[int, int], list[int | None]] = {}
        self.partitions = partitions

    def partition_of(self, captured: Captured) -> int:
        return topics.partition_of(captured.conversation_id, self.partitions)

    async def write(self, captures: list[Captured]) -> tuple[int, int]:
        """Write one record of captures of one partition; return its partition and offset."""
        partition = self.partition_of(captures[0])
        assert {self.partition_of(each) for each in captures} == {partition}
        record = CapturesRecord(1, REPLY_PARTITION, [encode(each) for each in captures])
        sent = await self._producer.send_and_wait(
            topics.CAPTURES, captures_codec.encode(record), partition=partition
        )
        return partition, sent.offset

    async def answer(self, name: tuple[int, int]) -> list[int | None]:
        """Return what was stored of each capture of a record, when the worker says so."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while name not in self._answers:
                reply = replies_codec.decode((await self._replies.getone()).value)
                stored = [result.stored for result in reply.results]
                self._answers[reply.partition, reply.offset] = stored
        return self._answers.pop(name)

    async def ask(self, captures: list[Captured]) -> list[int | None]:
        """Write one record, and return what was stored of each of its captures."""
        return await self.answer(await self.write(captures))


@asynccontextmanager
async def open_log(connection: Connection) -> AsyncIterator[Log]:
    """Open the log for writing and answering."""
    partitions = await captures_partitions(connection)
    replies = make_reader(connection)
    producer = await start_producer(connection, sizes.CAPTURES_RECORD)
    try:
        await replies.start()
        own = TopicPartition(topics.REPLIES, REPLY_PARTITION)
        replies.assign([own])
        await replies.seek_to_end(own)
        await replies.position(own)
        yield Log(producer, replies, partitions)
    finally:
        await replies.stop()
        await producer.stop()


async def read_partition(
    connection: Connection, topic: str, partition: int
) -> list[tuple[bytes, bytes | None]]:
    """Return keys and values of all that a partition holds now, in order."""
    own = TopicPartition(topic, partition)
    reader = make_reader(connection)
    found: list[tuple[bytes, bytes | None]] = []
    try:
        await reader.start()
        reader.assign([own])
        # Before anything else is awaited: the reader would go to the end by itself.
        await reader.seek_to_beginning(own)
        end = (await reader.end_offsets([own]))[own]
        while await reader.position(own) < end:
            fetched = await reader.getmany(timeout_ms=500)
            found += [(record.key, record.value) for record in fetched.get(own, [])]
    finally:
        await reader.stop()
    return found
