"""Where goes what can never be processed: raw, with its reason and its source."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer

from schemas import topics
from schemas.dead_letters import DeadLetter, Reason

log = structlog.get_logger()


class DeadLetters:
    """Writes to the dead-letters topic, into the partition that the source record has.

    Args:
        producer: sends them.
        count: called with the reason of each letter.

    """

    def __init__(self, producer: AIOKafkaProducer, count: Callable[[Reason], None]) -> None:
        self._producer = producer
        self._count = count

    async def send(self, letter: DeadLetter, value: bytes) -> asyncio.Future[Any]:
        """Send one; the source record may be acked only when the returned future is done.

        Args:
            letter: why it can't be processed, and whence it came.
            value: the raw bytes, of the record or of the part of it that is at fault.

        """
        source = letter.source
        log.error(
            "dead letter", reason=letter.reason, detail=letter.detail, topic=source.topic,
            partition=source.partition, offset=source.offset, index=source.index,
        )  # fmt: skip
        sent: asyncio.Future[Any] = await self._producer.send(
            topics.DEAD_LETTERS,
            value,
            key=letter.key,
            partition=source.partition,
            headers=letter.headers(),
        )
        self._count(letter.reason)
        return sent
