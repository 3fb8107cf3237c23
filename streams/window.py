"""Records in flight: acked in order, each only when all it wrote is acknowledged.

Faust commits past a hole at the head of what was acked, so nothing is acked out of order here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Written = Sequence[Awaitable[Any]]


class Windows:
    """One bounded window per partition, and one task that acks what is in it.

    The task acks whether or not another record arrives. A failed write is not survivable here: a
    later record must not be acked over it, so `on_failure` is called and the window stays shut.
    """

    def __init__(self, limit: int, on_failure: Callable[[BaseException], None]) -> None:
        self._limit = limit
        self._on_failure = on_failure
        self._queues: dict[int, asyncio.Queue[tuple[Written, Callable[[], None]]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def add(self, partition: int, written: Written, done: Callable[[], None]) -> None:
        """Take in a record; blocks while its partition's window is full.

        Args:
            partition: of the record.
            written: what must be acknowledged before the record is done.
            done: called then, after the `done` of every record before it.

        """
        queue = self._queues.get(partition)
        if queue is None:
            queue = self._queues[partition] = asyncio.Queue(self._limit)
            self._tasks.append(asyncio.create_task(self._ack(queue)))
        await queue.put((written, done))

    async def drained(self) -> None:
        """Return when every record that was added is done."""
        for queue in list(self._queues.values()):
            await queue.join()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ack(self, queue: asyncio.Queue[tuple[Written, Callable[[], None]]]) -> None:
        while True:
            written, done = await queue.get()
            try:
                for acknowledgement in written:
                    await acknowledgement
                done()
            except Exception as error:  # noqa: BLE001 - no later record may be acked
                self._on_failure(error)
                return
            queue.task_done()
