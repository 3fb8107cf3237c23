"""Faust's consumer, made to go back to where it must.

Faust resumes a partition's fetching before it seeks to the committed offset, and aiokafka's
`seek_to_committed` seeks nowhere where that is 0 or missing. What was fetched in between, or
dropped in a rebalance before the first commit, would never be read again.

It also seeks on its own account, from the task that fetches, where it finds that flow was stopped
meanwhile. That seek may still be under way when the rebalance is over, and then takes a partition
back while it is read: what is fetched already comes next, and what is between is missing.
"""

import asyncio
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from faust.transport.drivers.aiokafka import Consumer, Transport

MANY_RECORDS = 100
"""In one fetch; where it brought as many, more are waiting."""

Positions = Mapping[Any, int]
"""Offsets by topic partition."""


def more_wait(found: Mapping[Any, Sequence[Any]], fetch_bytes: int) -> bool:
    """Whether a fetch was so full that more records are waiting.

    Args:
        found: its records, by topic partition.
        fetch_bytes: that it brings of each at most. One that is cut off before a larger record may
            be half of it.

    """
    return sum(map(len, found.values())) >= MANY_RECORDS or any(
        2 * sum(len(record.value or b"") for record in records) >= fetch_bytes
        for records in found.values()
    )


class ActivePartitions:
    """The partitions to fetch from, as they are at every moment of a fetch that is under way.

    Faust hands aiokafka the very set that it changes, and aiokafka takes an empty one for all
    partitions: a fetch that was waiting when the set became empty would take records of
    partitions that are held. Faust drops those, and what had been sought already is never read.
    """

    def __init__(self, partitions: Container[Any]) -> None:
        self._partitions = partitions

    def __contains__(self, tp: object) -> bool:
        return tp in self._partitions


class RewindingConsumer(Consumer):  # type: ignore[misc]
    """Fetches from source partitions only once it has sought to where they must be read from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: set[Any] = set()
        self._sought: set[Any] = set()
        self._seeking = asyncio.Lock()
        self._collects = False

    async def _getmany(self, active_partitions: Container[Any], timeout: float) -> Any:  # noqa: ASYNC109
        if self._collects:
            await asyncio.sleep(self.app.collect_seconds)
        found = await super()._getmany(ActivePartitions(active_partitions), timeout)
        self._collects = self.app.collect_seconds > 0 and not more_wait(
            found, self.app.conf.consumer_max_fetch_size
        )
        return found

    def resume_partitions(self, tps: Iterable[Any]) -> None:
        changelogs = {tp for tp in tps if self._is_changelog_tp(tp)}
        self._held.update(set(tps) - changelogs)
        super().resume_partitions(changelogs)

    async def perform_seek(self) -> None:
        """Seek the partitions that are held back, and hold them back no longer.

        Where none is, a rebalance is under way, and a seek will follow when it is over.
        """
        async with self._seeking:
            if not self._held:
                return
            await super().perform_seek()
            # Of Faust's own type: those that were sought are aiokafka's, though equal.
            ready = {tp for tp in self._held if tp in self._sought}
            super().resume_partitions(ready)
            self._held -= ready

    async def on_partitions_assigned(self, assigned: set[Any], generation_id: int = 0) -> None:
        # Faust pauses them too, but only after it has waited: a record could be read meanwhile,
        # before its table is recovered.
        self.pause_partitions(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        self._held.clear()
        await super().on_partitions_revoked(revoked)

    async def seek_to_committed(self) -> Positions:
        """Seek every source partition; return the offsets that reading goes on from."""
        committed = await super().seek_to_committed()
        sources = {tp: at for tp, at in committed.items() if not self._is_changelog_tp(tp)}
        unsought = [tp for tp, at in sources.items() if not at]
        if unsought:
            earliest = await self.earliest_offsets(*unsought)
            await self.seek_wait(earliest)
            sources.update(earliest)
        self._sought = set(sources)
        for follow in self.app.on_seek:
            follow(sources)
        return sources


class RewindingTransport(Transport):  # type: ignore[misc]
    Consumer = RewindingConsumer
