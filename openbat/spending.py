"""What analysis workers have spent, shared through a compacted topic of one partition."""

import asyncio
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from analysis.llm import Spending, Tally
from schemas import topics
from schemas.codec import Codec, UndecodableError

log = structlog.get_logger()

PARTITION = TopicPartition(topics.SPENDING, 0)

tally_codec = Codec(Tally, version=1)


def key_of(tally: Tally) -> bytes:
    """Return the key of a tally: a later one of the same worker, chatbot and day replaces it."""
    return b"%d/%s/%s" % (tally.day, tally.chatbot_id.hex().encode(), tally.worker.encode())


async def publish(producer: AIOKafkaProducer, tally: Tally) -> None:
    """Hand a tally on; returns when it is durable, so that no kill makes money be forgotten."""
    await producer.send_and_wait(
        topics.SPENDING, tally_codec.encode(tally), key=key_of(tally), partition=0
    )


async def read_to_end(consumer: AIOKafkaConsumer, spending: Spending) -> None:
    """Assign the topic's partition and learn all that is there now."""
    consumer.assign([PARTITION])
    await consumer.seek_to_beginning(PARTITION)
    end = (await consumer.end_offsets([PARTITION]))[PARTITION]
    while await consumer.position(PARTITION) < end:
        _learn(await consumer.getmany(timeout_ms=100), spending)


async def follow(consumer: AIOKafkaConsumer, spending: Spending) -> None:
    """Learn every later tally as it comes, for ever."""
    while True:
        _learn(await consumer.getmany(timeout_ms=1000), spending)
        await asyncio.sleep(0)


def _learn(fetched: dict[TopicPartition, list[Any]], spending: Spending) -> None:
    for record in fetched.get(PARTITION, []):
        if record.value is None:
            continue
        try:
            spending.learn(tally_codec.decode(record.value))
        except UndecodableError as error:
            log.error("undecodable tally", offset=record.offset, error=str(error))
