"""One queue and one task per partition, so that no partition waits for another.

A lane hands on all that has queued up, as soon as no more comes: the busier a partition, the fewer
and larger its writes, with no linger when it is idle. Lanes begin together, so that what they write
shares requests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from streams.lull import Lull

MAX_RECORDS = 64
MAX_BYTES = 1024 * 1024


class Received(NamedTuple):
    """A record as it was read; `ack` is to be called when all it leads to is acknowledged."""

    offset: int
    value: bytes
    ack: Callable[[], Any]
    headers: Sequence[tuple[str, bytes | None]] = ()


class Flow(Protocol):
    """Stops and goes on fetching from a partition."""

    def stop(self, partition: int) -> None: ...

    def go_on(self, partition: int) -> None: ...


class Lanes:
    """Hands each partition's records to `process`, in order, as many at once as are there.

    Args:
        process: called with a partition and its next records.
        on_failure: called with what it raises.
        flow: told of a lane that is full, where processing may take long: `put` blocks then only
            where there is none, and what blocks it blocks every partition of every topic.
        max_bytes: of records that are handed on at once, but for the last one.

    """

    def __init__(
        self,
        process: Callable[[int, list[Received]], Awaitable[None]],
        on_failure: Callable[[BaseException], None],
        flow: Flow | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._process = process
        self._max_bytes = max_bytes
        self._flow = flow
        self._on_failure = on_failure
        self._queues: dict[int, asyncio.Queue[Received | None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._lull = Lull()

    async def put(self, partition: int, record: Received) -> None:
        """Queue a record; blocks while its partition's lane is full, unless the flow is stopped."""
        queue = self._queue(partition)
        await queue.put(record)
        self._lull.came()
        if self._flow is not None and queue.qsize() >= MAX_RECORDS:
            self._flow.stop(partition)

    def nudge(self, partition: int) -> None:
        """Have `process` called without a record, where nothing is queued."""
        queue = self._queue(partition)
        if queue.empty():
            queue.put_nowait(None)

    @property
    def waiting(self) -> int:
        """How many records are queued."""
        return sum(queue.qsize() for queue in self._queues.values())

    async def drained(self) -> None:
        """Return when every record that was put has been processed."""
        for queue in list(self._queues.values()):
            await queue.join()

    def _queue(self, partition: int) -> asyncio.Queue[Received | None]:
        queue = self._queues.get(partition)
        if queue is None:
            queue = self._queues[partition] = asyncio.Queue(
                0 if self._flow is not None else MAX_RECORDS
            )
            self._tasks.append(asyncio.create_task(self._run(partition, queue)))
        return queue

    async def _run(self, partition: int, queue: asyncio.Queue[Received | None]) -> None:
        try:
            while True:
                taken = [await queue.get()]
                await self._lull.wait()
                size = _size(taken[0])
                while size < self._max_bytes and not queue.empty():
                    taken.append(queue.get_nowait())
                    size += _size(taken[-1])
                if self._flow is not None and queue.qsize() < MAX_RECORDS // 2:
                    self._flow.go_on(partition)
                await self._process(partition, [record for record in taken if record is not None])
                for _ in taken:
                    queue.task_done()
        except Exception as error:  # noqa: BLE001 - no record may be passed over
            self._on_failure(error)


def _size(record: Received | None) -> int:
    return len(record.value) if record is not None else 0
