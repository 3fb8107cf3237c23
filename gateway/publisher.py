"""Publishes captures: batched per partition, answered only after the broker's acknowledgement.

A batch collects for the linger, and while the one before it is on its way, up to a byte limit: the
busier a partition, the larger its records.

Where the log is late, captures do not queue up to wait for it in vain. Once a capture of a
partition has waited for the whole time-out, later ones are refused at once, but for one that finds
out whether the log is back: the one that the producer still tries to send, or else the next.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Generic, TypeVar

import structlog

from gateway.errors import unavailable
from gateway.lane import Lane
from gateway.metrics import GatewayMetrics
from gateway.pace import Pace
from gateway.replies import Soon
from gateway.sender import NotConfirmedError, Sender
from schemas import sizes, topics
from schemas.positions import MAX_CAPTURES_PER_RECORD
from schemas.traces import MAX_TRACES

log = structlog.get_logger()

MAX_PENDING_BYTES = 64 * sizes.MIB
"""What may wait for acknowledgement in one gateway; beyond it a capture is answered with 503."""

MAX_PENDING_CAPTURES = 10_000
"""How many may wait for it: a request that waits takes memory beside its capture."""

E = TypeVar("E")


class Published(Generic[E]):
    """One record to be, whose captures all wait for it.

    Both futures raise RefusedError (503) where the broker did not acknowledge the record in time.

    Attributes:
        acknowledged: of what `on_acknowledged` gave for it, or None where the broker no longer
            knows its offset.
        soon: as `on_acknowledged` was given it; None where the broker no longer knows the offset.
        begun_at: when its first capture came, in the loop's time.
        traceparents: of those of its captures that are traced.

    """

    __slots__ = (
        "acknowledged", "begun_at", "frames", "is_due", "size", "soon", "timer", "traceparents",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.begun_at = loop.time()
        self.frames: list[bytes] = []
        self.traceparents: list[bytes] = []
        self.size = 0
        self.is_due = False
        """Whether the linger is over."""
        self.acknowledged: asyncio.Future[E | None] = loop.create_future()
        self.soon: Soon = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    def refuse(self, message: str) -> None:
        refused = unavailable("not_confirmed", message)
        for waited_for in (self.acknowledged, self.soon):
            if not waited_for.done():
                waited_for.set_exception(refused)
                waited_for.exception()  # clients may all have gone: that is no error


class Publisher(Generic[E]):
    """The gateway's only writer of `captures`.

    Args:
        sender: brings records to the log.
        partitions: of the captures topic.
        pace: how long a batch collects at least.
        timeout_seconds: how long a capture waits for its acknowledgement.
        on_acknowledged: called once for each acknowledged record, with its partition, its offset
            and the `soon` of its captures, which it has to see to.
        metrics: told of acknowledged records.

    """

    def __init__(
        self,
        sender: Sender,
        on_acknowledged: Callable[[int, int, Soon], E],
        *,
        partitions: int,
        pace: Pace,
        timeout_seconds: float,
        metrics: GatewayMetrics,
    ) -> None:
        self._sender = sender
        self._on_acknowledged = on_acknowledged
        self._pace = pace
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        # Else a record would be sent, and logged, in the name of the request that began its batch.
        self._context = copy_context()
        self._lanes: list[Lane[Published[E]]] = [Lane() for _ in range(partitions)]
        self._pending_bytes = 0
        self._pending_captures = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._window: asyncio.TimerHandle | None = None
        self._collecting: list[tuple[int, Published[E]]] = []
        """Batches that the window under way has begun."""

    @property
    def pending_captures(self) -> int:
        """How many wait for acknowledgement."""
        return self._pending_captures

    @property
    def pending_bytes(self) -> int:
        """Their size."""
        return self._pending_bytes

    @property
    def late_partitions(self) -> int:
        """In how many partitions the log is late."""
        return sum(lane.is_late for lane in self._lanes)

    def publish(
        self, conversation_id: bytes, frame: bytes, traceparent: bytes | None = None
    ) -> tuple[Published[E], int]:
        """Add an encoded capture to its partition's batch.

        Args:
            conversation_id: decides on the partition.
            frame: the capture.
            traceparent: goes with the record, None where the capture is not traced.

        Returns:
            The record to be, and the capture's index in it. All captures of the record share its
            futures, so who may give up alone must shield them.

        Raises:
            RefusedError: 503, too much waits for acknowledgement already, or the log is late.

        """
        if (
            self._pending_bytes + len(frame) > MAX_PENDING_BYTES
            or self._pending_captures == MAX_PENDING_CAPTURES
        ):
            raise unavailable("overloaded", "Too many captures wait for the log: send it again.")
        partition = topics.partition_of(conversation_id, len(self._lanes))
        lane = self._lanes[partition]
        if lane.is_shut:
            raise unavailable("log_unavailable", "The log does not answer: send it again.")
        batch = lane.batch
        if batch is None:
            batch = lane.batch = Published(self._loop)
            batch.timer = self._loop.call_later(
                self._timeout_seconds, self._expire, partition, batch, context=self._context
            )
            self._collecting.append((partition, batch))
            if self._window is None:
                self._window = self._loop.call_later(
                    self._pace.linger_seconds, self._end_window, context=self._context
                )
        index = len(batch.frames)
        batch.frames.append(frame)
        batch.size += len(frame)
        self._pending_bytes += len(frame)
        self._pending_captures += 1
        if traceparent is not None and len(batch.traceparents) < MAX_TRACES:
            batch.traceparents.append(traceparent)
        if batch.size >= sizes.BATCH or index + 1 == MAX_CAPTURES_PER_RECORD:
            self._flush(partition, batch)
        return batch, index

    async def start(self) -> None:
        """Connect to the broker. Raises KafkaError where it can't be reached."""
        await self._sender.start()

    async def close(self) -> None:
        """Send what was collected, and wait until it is acknowledged or given up."""
        for partition, lane in enumerate(self._lanes):
            if lane.batch is not None:
                self._flush(partition, lane.batch)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout_seconds)
        await self._sender.close()

    def _expire(self, partition: int, batch: Published[E]) -> None:
        lane = self._lanes[partition]
        batch.refuse("The log did not confirm the capture in time: send it again unchanged.")
        if not lane.is_late:
            lane.is_late = True
            log.warning("the log is late: captures are refused", partition=partition)
        if lane.batch is batch:
            lane.batch = None
            self._release(batch)

    def _end_window(self) -> None:
        """Send what all partitions have collected, so that it is one request to each broker."""
        self._window = None
        collecting, self._collecting = self._collecting, []
        for partition, batch in collecting:
            batch.is_due = True
            if not self._lanes[partition].on_their_way:
                self._flush(partition, batch)

    def _flush(self, partition: int, batch: Published[E]) -> None:
        lane = self._lanes[partition]
        if lane.batch is not batch:
            return
        lane.batch = None
        lane.on_their_way += 1
        task = asyncio.create_task(self._send(partition, batch), context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, partition: int, batch: Published[E]) -> None:
        self._pace.sent(len(batch.frames), self._loop.time())
        lane = self._lanes[partition]
        try:
            offset = await self._sender.send(partition, batch.frames, batch.traceparents)
        except NotConfirmedError:
            batch.refuse("The log did not confirm the capture: send it again.")
        else:
            lane.is_late = False
            self._metrics.acknowledged(len(batch.frames), self._loop.time() - batch.begun_at)
            if not batch.acknowledged.done():
                expected = None
                if offset is not None:
                    expected = self._on_acknowledged(partition, offset, batch.soon)
                elif not batch.soon.done():
                    batch.soon.set_result(None)
                batch.acknowledged.set_result(expected)
        finally:
            if batch.timer is not None:
                batch.timer.cancel()
            self._release(batch)
            lane.on_their_way -= 1
            if lane.batch is not None and lane.batch.is_due and not lane.on_their_way:
                self._flush(partition, lane.batch)

    def _release(self, batch: Published[E]) -> None:
        self._pending_bytes -= batch.size
        self._pending_captures -= len(batch.frames)
