"""The conversations worker's outputs from a bare aiokafka loop, with a dict for its table.

What the job costs without a table that outlives the process, without a framework, and without
checks: nothing is kept over a restart, no record that can't be decoded is survived.
"""

import asyncio
import os
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from garbage import collect_rarely

NAME = "loop"
MIB = 1 << 20
BATCH = 256 * 1024

decode = msgspec.msgpack.Decoder().decode
encode = msgspec.msgpack.Encoder().encode

ids: dict[tuple[bytes, str], tuple[int, int, int]] = {}
states: dict[bytes, dict[str, Any]] = {}


def take(frame: bytes, place: tuple[int, int, int]) -> tuple[tuple[Any, ...], tuple[Any, ...], int]:
    """Apply one capture; return its parts of the messages, the analysis and the reply."""
    chatbot_id, conversation_id, external_id, received_at, _, messages, fields, _ = decode(frame)
    new = [
        (*message[:4], received_at, place)
        for message in messages
        if ids.setdefault((conversation_id, message[0]), place) == place
    ]
    state = states.get(conversation_id)
    if state is None:
        state = states[conversation_id] = {
            "external_id": external_id, "revision": 0, "count": 0, "first": received_at,
            "last": received_at, "created": received_at, "fields": {},
        }  # fmt: skip
    state["revision"] = max(state["revision"] + 1, received_at)
    state["count"] += len(new)
    state["updated"] = received_at
    for message in new:
        state["first"] = min(state["first"], message[3])
        state["last"] = max(state["last"], message[3])
    for group, values in fields.items():
        state["fields"][group] = {**state["fields"].get(group, {}), **values}
    raw = msgspec.Raw(encode(new))
    return (conversation_id, state, raw), (chatbot_id, conversation_id, raw), len(new)


async def main() -> None:
    consumer = AIOKafkaConsumer(
        f"{NAME}-captures",
        bootstrap_servers=os.environ["BOOTSTRAP"],
        group_id=NAME,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=MIB,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["BOOTSTRAP"],
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=BATCH,
    )
    await consumer.start()
    await producer.start()
    while True:
        fetched = await consumer.getmany(timeout_ms=1000)
        sent = []
        for tp, records in fetched.items():
            for record in records:
                # The first byte is the format's version.
                _, _, frames = decode(memoryview(record.value)[1:])
                applied = [
                    take(frame, (tp.partition, record.offset, at))
                    for at, frame in enumerate(frames)
                ]
                for name, at in (("messages", 0), ("analysis", 1), ("replies", 2)):
                    value = encode([each[at] for each in applied])
                    sent.append(
                        await producer.send(f"{NAME}-{name}", value, partition=tp.partition)
                    )
        await asyncio.gather(*sent)
        if fetched:
            await consumer.commit()


if __name__ == "__main__":
    collect_rarely()
    uvloop.run(main())
