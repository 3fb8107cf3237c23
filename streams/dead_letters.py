"""Where a record goes that can never be processed: raw, with its reason and its source."""

import asyncio
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer

from schemas import topics

log = structlog.get_logger()

MAX_REASON_CHARACTERS = 300
"""A reason may quote what is at fault, which has any length."""


class DeadLetters:
    """Writes to the dead-letters topic, into the partition that the source record has."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def send(
        self, value: bytes, reason: str, topic: str, partition: int, offset: int, index: int
    ) -> asyncio.Future[Any]:
        """Send one; the source record may be acked only when the returned future is done.

        Args:
            value: the raw bytes, of the record or of the part of it that is at fault.
            reason: why it can't be processed, for a person; cut where it is long.
            topic: source topic.
            partition: source partition.
            offset: source offset.
            index: of the part in the record, -1 for the whole record.

        """
        reason = reason[:MAX_REASON_CHARACTERS]
        log.error(
            "dead letter", reason=reason, topic=topic, partition=partition,
            offset=offset, index=index,
        )  # fmt: skip
        headers = [
            ("reason", reason.encode(errors="replace")),
            ("source-topic", topic.encode()),
            ("source-partition", str(partition).encode()),
            ("source-offset", str(offset).encode()),
            ("source-index", str(index).encode()),
        ]
        sent: asyncio.Future[Any] = await self._producer.send(
            topics.DEAD_LETTERS, value, partition=partition, headers=headers
        )
        return sent
