"""Sends records of captures through one producer, and replaces it after a refused one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas import topics
from schemas.records import CapturesRecord, captures_codec
from schemas.traces import TRACEPARENT, log_fields

log = structlog.get_logger()

UNKNOWN_OFFSET = -1
"""What aiokafka gives where the broker took a record before, but no longer knows its offset."""

MakeProducer = Callable[[], Awaitable[AIOKafkaProducer]]


class NotConfirmedError(Exception):
    """Raised when a record was not acknowledged; why is logged."""


class Sender:
    """What the publisher brings records to the log with.

    Args:
        make_producer: makes and starts an idempotent producer with acks=all and no linger.
        generation: returns that of the captures topic, as the registry has it now. A restored
            registry raises it before it brings back the first chatbot, so that a record with a
            capture of such a chatbot never has the one before.
        reply_partition: where this gateway reads its replies.
        stop_seconds: how long a producer may take to stop.

    """

    def __init__(
        self,
        make_producer: MakeProducer,
        *,
        generation: Callable[[], int],
        reply_partition: int,
        stop_seconds: float,
    ) -> None:
        self._make_producer = make_producer
        self._generation = generation
        self._reply_partition = reply_partition
        self._stop_seconds = stop_seconds
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect to the broker. Raises KafkaError where it can't be reached."""
        await self._ready_producer()

    async def send(
        self, partition: int, captures: list[bytes], traceparents: Sequence[bytes]
    ) -> int | None:
        """Send captures as one record; return its offset once it is acknowledged.

        It is None where the broker no longer knows it.

        Raises:
            NotConfirmedError: whatever went wrong.

        """
        headers = [(TRACEPARENT, each) for each in traceparents] or None
        producer = self._producer
        try:
            if producer is None:
                producer = await self._ready_producer()
            record = captures_codec.encode(
                CapturesRecord(self._generation(), self._reply_partition, captures)
            )
            sent = await producer.send(
                topics.CAPTURES, record, partition=partition, headers=headers
            )
            metadata = await sent
        except Exception as error:
            log.warning(
                "the log refused a record",
                partition=partition, error=repr(error), **log_fields(traceparents),
            )  # fmt: skip
            if producer is not None:
                self._give_up(producer)
            raise NotConfirmedError from error
        return None if metadata.offset == UNKNOWN_OFFSET else metadata.offset

    async def close(self) -> None:
        """Stop the producer, and wait for those that are being stopped."""
        if self._producer is not None:
            self._stop_soon(self._producer)
        if self._stopping:
            await asyncio.wait(self._stopping)

    async def _ready_producer(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                self._producer = await self._make_producer()
            return self._producer

    def _give_up(self, producer: AIOKafkaProducer) -> None:
        """Replace a producer: after a refused record its sequence can't be gone on with."""
        if self._producer is producer:
            self._producer = None
            self._stop_soon(producer)

    def _stop_soon(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(self._stop(producer))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        try:
            await asyncio.wait_for(producer.stop(), self._stop_seconds)
        except (KafkaError, TimeoutError) as error:
            log.warning("a producer did not stop cleanly", error=repr(error))
