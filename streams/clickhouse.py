"""The ClickHouse agent: gathers records of a topic into batches, acks what is inserted."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from schemas.codec import UndecodableError
from schemas.dead_letters import WHOLE_RECORD, DeadLetter, Source, detail_of
from schemas.traces import MAX_TRACES, traceparents
from streams.dead_letters import DeadLetters
from streams.lanes import Received

if TYPE_CHECKING:
    from streams.tracing import StreamTracer

MAX_BATCH_ROWS = 50_000
MAX_BATCH_BYTES = 64 * 1024 * 1024
MAX_BATCH_AGE_SECONDS = 0.5


Rejected = tuple[DeadLetter, bytes]
"""What can never be written, a row or a part of a record: its letter, and a record of it alone."""


class Batch(Protocol):
    """Rows of several records."""

    @property
    def rows(self) -> int: ...

    def add(self, value: bytes, partition: int, offset: int) -> Sequence[Rejected]:
        """Add a record's rows; return its parts that have none.

        Raises UndecodableError, and adds none then.
        """


B = TypeVar("B", bound=Batch)
B_contra = TypeVar("B_contra", contravariant=True)


class Sink(Protocol[B_contra]):
    """Where batches go."""

    async def write(self, batch: B_contra) -> Sequence[Rejected]:
        """Write all rows, retrying as long as it takes; return those that can never be written."""


class ClickHouseAgent(Generic[B]):
    """Fills one batch while the one before it is being written.

    A batch is bounded by rows, bytes and age. Its records are acked in order when it is written.

    Args:
        topic: whose records it processes.
        empty_batch: makes a batch for records of the topic.
        sink: where batches go; other agents may share it.
        dead_letters: where what can't be written goes.
        tracer: ends the traces that records come with, None where they end before.

    """

    def __init__(
        self,
        topic: str,
        empty_batch: Callable[[], B],
        sink: Sink[B],
        dead_letters: DeadLetters,
        tracer: "StreamTracer | None" = None,
    ) -> None:
        self._topic = topic
        self._empty_batch = empty_batch
        self._sink = sink
        self._dead_letters = dead_letters
        self._tracer = tracer
        self._not_empty = asyncio.Event()
        self._room = asyncio.Event()
        self._full = asyncio.Event()
        self._unacked = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._start_batch()

    def _start_batch(self) -> None:
        self._batch = self._empty_batch()
        self._bytes = 0
        self._acks: list[Callable[[], Any]] = []
        self._parents: list[bytes] = []
        self._not_empty.clear()
        self._full.clear()
        self._room.set()

    async def process(self, partition: int, record: Received) -> None:
        """Take in one record; blocks while the batch is full and the one before it is written."""
        await self._room.wait()
        self._unacked += 1
        self._idle.clear()
        offset, value, ack, headers = record
        try:
            await self._dead_letter(self._batch.add(value, partition, offset))
        except UndecodableError as error:
            source = Source(self._topic, partition, offset, WHOLE_RECORD)
            letter = DeadLetter("undecodable_output", detail_of(error), source)
            await self._dead_letter([(letter, value)])
        if headers and len(self._parents) < MAX_TRACES:
            self._parents += traceparents(headers)
        self._acks.append(ack)
        self._bytes += len(value)
        self._not_empty.set()
        if self._batch.rows >= MAX_BATCH_ROWS or self._bytes >= MAX_BATCH_BYTES:
            self._full.set()
            self._room.clear()

    async def run(self) -> None:
        """Write batches for ever."""
        while True:
            await self._not_empty.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), MAX_BATCH_AGE_SECONDS)
            batch, acks, parents = self._batch, self._acks, self._parents
            self._start_batch()
            await self._write(batch, parents)
            for ack in acks:
                ack()
            self._unacked -= len(acks)
            if not self._unacked:
                self._idle.set()

    async def _write(self, batch: B, parents: list[bytes]) -> None:
        spans = None
        if parents and self._tracer is not None:
            spans = self._tracer.inserting(parents, self._topic, batch.rows)
        if spans is None:
            await self._dead_letter(await self._sink.write(batch))
            return
        with spans.logged():
            await self._dead_letter(await self._sink.write(batch))
        spans.end()

    async def _dead_letter(self, rejected: Sequence[Rejected]) -> None:
        for letter, value in rejected:
            await (await self._dead_letters.send(letter, value))

    async def drained(self) -> None:
        """Return when every record that was taken in is acked."""
        await self._idle.wait()
