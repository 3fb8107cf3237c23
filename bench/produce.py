"""Records at a steady rate, each acknowledged by itself: what the durable write alone takes.

`python -m bench.produce BOOTSTRAP TOPIC PARTITIONS RATE SECONDS` prints one line of JSON, as
`bench.load` does.
"""

import asyncio
import itertools
import sys

import msgspec
import uvloop

from bench import data
from bench.load import GRACE_SECONDS, WARM_UP_SECONDS, summary
from openbat.connection import Connection
from openbat.kafka import start_producer
from schemas import sizes


async def main(bootstrap: str, topic: str, partitions: int, rate: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    producer = await start_producer(Connection(bootstrap), sizes.BATCH)
    records = data.records(data.frames("p", 5_000), partitions, 1)
    start = loop.time() + 0.1
    latencies: list[float] = []
    under_way: set[asyncio.Task[None]] = set()
    sent = all_sent = 0

    async def send(partition: int, value: bytes, due: float) -> None:
        await producer.send_and_wait(topic, value, partition=partition)
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
    found = summary(sent, latencies, 0, all_sent)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    bootstrap, topic, partitions, rate, seconds = sys.argv[1:]
    uvloop.run(main(bootstrap, topic, int(partitions), float(rate), float(seconds)))
