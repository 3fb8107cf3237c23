"""Matches the worker's replies with the captures that wait for them.

A `captures` record is named by its partition and offset, which the gateway learns from the
broker's acknowledgement; the worker's reply carries the same name. A reply may overtake the
acknowledgement: it is parked until then.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaConsumer

from gateway.metrics import GatewayMetrics
from gateway.pace import Pace
from schemas.codec import UndecodableError
from schemas.records import CaptureResult, RepliesRecord, replies_codec

log = structlog.get_logger()

Results = list[CaptureResult]
Soon = asyncio.Future[Results | None]
Name = tuple[int, int]

MAX_PARKED = 10_000
MAX_EXPECTED = 50_000
"""Records whose replies may still be asked for. What is over it is answered provisionally."""


def result_at(results: Results | None, index: int) -> CaptureResult | None:
    """Return a capture's result, None where there is no reply, or a foreign one that lacks it."""
    return results[index] if results and index < len(results) else None


class Expected:
    """The reply to one record: to come, come, or given up on.

    Attributes:
        partition: of the record.
        soon: the results, or None where they can't be waited for by default.
        results: the results, whenever they come, or None where the gateway ends before.
        at: when it was asked for, in the loop's time.
        is_late: whether the default wait is over.

    """

    __slots__ = ("at", "is_late", "partition", "results", "soon", "timer")

    def __init__(self, partition: int, soon: Soon, loop: asyncio.AbstractEventLoop) -> None:
        self.partition = partition
        self.at = loop.time()
        self.is_late = False
        self.soon = soon
        self.results: asyncio.Future[Results | None] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None


class Replies:
    """The replies to this gateway's records, and a circuit breaker per captures partition.

    The breaker opens when a reply does not come in time: captures of that partition are then
    answered without waiting. It closes when a reply of that partition comes in time again, or, late
    as it is, the last one that was awaited: the workers are back, and nothing waits for them.

    Args:
        wait_seconds: the default wait for a reply.
        keep_seconds: how long a reply may be asked for at most (`Prefer: wait`).
        pace: is told how long replies take.
        metrics: is told too.

    """

    def __init__(
        self,
        wait_seconds: float,
        keep_seconds: float,
        pace: Pace,
        metrics: GatewayMetrics,
    ) -> None:
        self._wait_seconds = wait_seconds
        self._keep_seconds = max(keep_seconds, wait_seconds)
        self._pace = pace
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._expected: dict[Name, Expected] = {}
        self._parked: dict[Name, tuple[float, Results]] = {}
        self._late: set[int] = set()
        self._awaited: Counter[int] = Counter()
        """How many of a partition's records are expected."""

    @property
    def late_partitions(self) -> int:
        """How many partitions' breakers are open."""
        return len(self._late)

    @property
    def awaited(self) -> int:
        """How many records' replies may still come."""
        return len(self._expected)

    def expect(self, partition: int, offset: int, soon: Soon) -> Expected:
        """Return the reply to the record at this offset, which was just acknowledged.

        Its captures wait for `soon`: it is given the reply, or None where that does not come within
        the default wait, or the partition's breaker is open.
        """
        expected = Expected(partition, soon, self._loop)
        self._forget_old(expected.at)
        parked = self._parked.pop((partition, offset), None)
        if parked is not None:
            self._settle(expected, parked[1])
            return expected
        self._expected[partition, offset] = expected
        self._awaited[partition] += 1
        expected.timer = self._loop.call_later(self._wait_seconds, self._give_up_soon, expected)
        if partition in self._late and not soon.done():
            soon.set_result(None)
        return expected

    def receive(self, reply: RepliesRecord) -> None:
        """Take in a reply: hand it to who waits for it, or park it."""
        name = reply.partition, reply.offset
        expected = self._expected.pop(name, None)
        if expected is not None:
            self._awaited[reply.partition] -= 1
            self._settle(expected, reply.results)
            if not self._awaited[reply.partition]:
                self._late.discard(reply.partition)
            return
        self._parked[name] = self._loop.time(), reply.results
        if len(self._parked) > MAX_PARKED:
            del self._parked[next(iter(self._parked))]

    def give_up(self) -> None:
        """Tell all who wait that the results will not come."""
        for expected in self._expected.values():
            if expected.timer is not None:
                expected.timer.cancel()
            for future in (expected.soon, expected.results):
                if not future.done():
                    future.set_result(None)
        self._expected.clear()
        self._awaited.clear()

    def _settle(self, expected: Expected, results: Results) -> None:
        if expected.timer is not None:
            expected.timer.cancel()
        took = self._loop.time() - expected.at
        self._pace.replied(took)
        self._metrics.replied(took)
        if not expected.is_late:
            self._late.discard(expected.partition)
        if not expected.soon.done():
            expected.soon.set_result(results)
        expected.results.set_result(results)

    def _give_up_soon(self, expected: Expected) -> None:
        expected.is_late = True
        if not expected.soon.done():
            expected.soon.set_result(None)
        if expected.partition not in self._late:
            self._late.add(expected.partition)
            log.warning("replies are late: provisional answers", partition=expected.partition)

    def _forget_old(self, now: float) -> None:
        before = now - self._keep_seconds
        while self._expected:
            name, expected = next(iter(self._expected.items()))
            if expected.at >= before and len(self._expected) < MAX_EXPECTED:
                break
            del self._expected[name]
            self._awaited[expected.partition] -= 1
        before = now - self._wait_seconds
        while self._parked:
            name = next(iter(self._parked))
            if self._parked[name][0] >= before:
                break
            del self._parked[name]


async def read_replies(
    consumer: AIOKafkaConsumer, receive: Callable[[RepliesRecord], None], pace: Pace
) -> None:
    """Hand every reply that the consumer reads to `receive`, for ever.

    The consumer asks for more as soon as it is read from, and a request costs as much as several
    captures: where the workers lag, replies are let collect.
    """
    while True:
        await asyncio.sleep(pace.reading_seconds)
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                try:
                    receive(replies_codec.decode(record.value or b""))
                except UndecodableError as error:
                    log.warning("undecodable reply", offset=record.offset, error=str(error))
