"""Records at a steady rate, each acknowledged by itself: what the durable write alone takes.

`python -m bench.produce BOOTSTRAP TOPIC RATE SECONDS [REPLIES]` prints one line of JSON, as
`bench.load` does. With a topic of replies each record also waits for its own, from `bench.echo`:
what two bare clients take for it.
"""

import asyncio
import itertools
import sys
from collections import defaultdict

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench import data
from bench.contest import PARTITIONS
from bench.echo import Name
from bench.load import GRACE_SECONDS, WARM_UP_SECONDS, summary
from openbat.connection import Connection
from openbat.kafka import make_reader, start_producer
from schemas import sizes


class Replies:
    """What `bench.echo` sends back. A reply may come before its record is acknowledged."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._came: defaultdict[Name, asyncio.Event] = defaultdict(asyncio.Event)

    async def start(self) -> None:
        await self._consumer.start()
        tp = TopicPartition(self._topic, 0)
        self._consumer.assign([tp])
        await self._consumer.seek_to_end(tp)

    async def wait(self, name: Name) -> None:
        await self._came[name].wait()
        del self._came[name]

    async def close(self) -> None:
        await self._consumer.stop()

    async def read(self) -> None:
        """Take in replies, for ever."""
        while True:
            for records in (await self._consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    for name in msgspec.msgpack.decode(record.value or b"", type=list[Name]):
                        self._came[name].set()


async def main(bootstrap: str, topic: str, rate: float, seconds: float, replies: str) -> None:
    loop = asyncio.get_running_loop()
    connection = Connection(bootstrap)
    producer = await start_producer(connection, sizes.BATCH)
    answers = Replies(make_reader(connection), replies) if replies else None
    if answers is not None:
        await answers.start()
        reading = asyncio.create_task(answers.read())
    records = data.records(data.frames("p", 5_000), PARTITIONS, 1)
    start = loop.time() + 0.1
    latencies: list[float] = []
    under_way: set[asyncio.Task[None]] = set()
    sent = all_sent = 0

    async def send(partition: int, value: bytes, due: float) -> None:
        written = await producer.send_and_wait(topic, value, partition=partition)
        if answers is not None:
            await answers.wait((partition, written.offset))
        if due >= start + WARM_UP_SECONDS:
            latencies.append(loop.time() - due)

    for number, (partition, value) in enumerate(itertools.cycle(records)):
        due = start + number / rate
        if due > start + WARM_UP_SECONDS + seconds:
            break
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(send(partition, value, due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        sent += due >= start + WARM_UP_SECONDS
        all_sent += 1
    if under_way:
        await asyncio.wait(under_way, timeout=GRACE_SECONDS)
    await producer.stop()
    if answers is not None:
        if reading.done():
            reading.result()
        reading.cancel()
        await answers.close()
    found = summary(sent, latencies, 0, all_sent)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    bootstrap, topic, rate, seconds, *replies = sys.argv[1:]
    uvloop.run(main(bootstrap, topic, float(rate), float(seconds), *(replies or [""])))
