"""A table's changelog: entries leave as batches, each acknowledged as a whole."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

Acknowledged = asyncio.Future[Any]
ChangelogEntry = tuple[bytes, bytes | None]


async def send_changelog(
    producer: AIOKafkaProducer, topic: str, partition: int, entries: Iterable[ChangelogEntry]
) -> list[tuple[Acknowledged, int]]:
    """Send table entries as batches; return each one's acknowledgement and its size.

    Raises:
        KafkaError: something could not be sent.

    """
    builders: list[Any] = []
    for key, value in entries:
        if not builders or builders[-1].append(key=key, value=value, timestamp=None) is None:
            builders.append(producer.create_batch())
            builders[-1].append(key=key, value=value, timestamp=None)
    sent = []
    for builder in builders:
        builder.close()
        acknowledged = await producer.send_batch(builder, topic, partition=partition)
        sent.append((acknowledged, builder.record_count()))
    return sent
