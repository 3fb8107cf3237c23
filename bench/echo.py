"""In the worker's place: answers records at once, with their names, and keeps nothing.

`python -m bench.echo BOOTSTRAP TOPIC REPLIES`; it says so where it can take the first record.
"""

import sys

import msgspec
import uvloop
from aiokafka import TopicPartition

from bench.contest import PARTITIONS
from openbat.connection import Connection
from openbat.kafka import make_reader, start_producer
from schemas import sizes

READY = "ready"

Name = tuple[int, int]
"""A record's partition and offset."""


async def main(bootstrap: str, topic: str, replies: str) -> None:
    producer = await start_producer(Connection(bootstrap), sizes.BATCH)
    consumer = make_reader(Connection(bootstrap))
    await consumer.start()
    tps = [TopicPartition(topic, at) for at in range(PARTITIONS)]
    consumer.assign(tps)
    await consumer.seek_to_end(*tps)
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    while True:
        names: list[Name] = [
            (record.partition, record.offset)
            for records in (await consumer.getmany(timeout_ms=1000)).values()
            for record in records
        ]
        if names:
            await producer.send(replies, msgspec.msgpack.encode(names), partition=0)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
