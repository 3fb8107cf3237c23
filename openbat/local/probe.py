"""Finds out whether captures are answered exactly, without capturing anything."""

import asyncio

from aiokafka import TopicPartition

from openbat.connection import Connection
from openbat.kafka import captures_partitions, make_reader, start_producer
from schemas import sizes, topics
from schemas.records import CapturesRecord, captures_codec, replies_codec

REPLY_PARTITION = 0


async def wait_exact(connection: Connection, timeout_seconds: float) -> None:
    """Return when every partition of captures has a worker that answers.

    Sends a record without captures to each and waits for its reply.

    Raises:
        TimeoutError: one did not answer.

    """
    async with asyncio.timeout(timeout_seconds):
        partitions = await captures_partitions(connection)
        reader = make_reader(connection)
        producer = await start_producer(connection, sizes.BATCH)
        try:
            await reader.start()
            own = TopicPartition(topics.REPLIES, REPLY_PARTITION)
            reader.assign([own])
            await reader.seek_to_end(own)
            await reader.position(own)
            record = captures_codec.encode(CapturesRecord(0, REPLY_PARTITION, []))
            missing = set()
            for partition in range(partitions):
                sent = await producer.send_and_wait(topics.CAPTURES, record, partition=partition)
                missing.add((partition, sent.offset))
            while missing:
                reply = replies_codec.decode((await reader.getone()).value)
                missing.discard((reply.partition, reply.offset))
        finally:
            await reader.stop()
            await producer.stop()
