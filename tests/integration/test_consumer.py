"""What a worker's consumer takes from aiokafka, on real Kafka."""

import asyncio

from aiokafka import TopicPartition

from openbat.kafka import make_reader, start_producer
from schemas import sizes, topics
from streams.consumer import ActivePartitions
from tests.stack import Stack

PART, OTHER = (TopicPartition(topics.ANALYSES, number) for number in range(2))
UNDER_WAY_SECONDS = 1.0


async def test_a_waiting_fetch_takes_nothing_once_all_partitions_are_held(stack: Stack) -> None:
    """As in a rebalance: Faust empties the set while aiokafka waits for records."""
    reader = make_reader(stack.connection)
    producer = await start_producer(stack.connection, sizes.BATCH)
    try:
        await reader.start()
        reader.assign([PART, OTHER])
        await reader.seek_to_end(PART, OTHER)
        start = await reader.position(PART)
        active = {OTHER}
        fetch = reader._fetcher.fetched_records
        fetching = asyncio.create_task(fetch(ActivePartitions(active), timeout=UNDER_WAY_SECONDS))
        await asyncio.sleep(0)
        active.clear()
        await producer.send_and_wait(PART.topic, b"held", partition=PART.partition)
        assert await fetching == {}
        assert await reader.position(PART) == start
        active.add(PART)
        found = await fetch(ActivePartitions(active), timeout=10)
        assert [record.value for record in found[PART]] == [b"held"]
    finally:
        await producer.stop()
        await reader.stop()
