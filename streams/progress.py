"""How far a worker is: read from Faust when somebody asks, so that no record pays for it."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from faust.types import TP

from streams.app import WorkerApp
from streams.table import WorkerTable

ENDS_SECONDS = 2.0
"""How long Kafka may take to say where partitions end."""


class PartitionLag(NamedTuple):
    """What a partition's records still wait for.

    Attributes:
        topic, partition: which one.
        records: from the committed position to the partition's end, None where Kafka does not say.
        in_flight: how many were read and are not acked yet.
        seconds: the age of the oldest of those; 0 where there is nothing to do, None where there
            is, but none of it was read.

    """

    topic: str
    partition: int
    records: int | None
    in_flight: int
    seconds: float | None


class StoreSize(NamedTuple):
    """A partition's local store: its entries, as RocksDB estimates them, and bytes of its files."""

    table: str
    partition: int
    entries: int
    file_bytes: int


class Look(NamedTuple):
    """One look at a worker.

    Attributes:
        ready: whether it has joined its group and its table is recovered.
        lags: of the partitions that it reads.
        recovering: changelog records that its table still lacks.
        standby_recovering: that its standby copies lack, of those there were when it began.
        stores: of its table, standby copies included.
        kafka_answers: whether Kafka said where partitions end, where it could be asked.

    """

    ready: bool
    lags: list[PartitionLag]
    recovering: int
    standby_recovering: int
    stores: list[StoreSize]
    kafka_answers: bool = True


class Progress:
    """Looks at a worker's app. To be used in its event loop."""

    def __init__(self, app: WorkerApp) -> None:
        self._app = app
        self._asking: asyncio.Future[Mapping[TP, int]] | None = None

    async def look(self) -> Look:
        app = self._app
        recovery = app.tables.recovery
        found, kafka_answers = await self._lags()
        return Look(
            ready=app.tables.actives_ready or app.unassigned,
            lags=found,
            recovering=missing(recovery.active_highwaters, recovery.active_offsets),
            standby_recovering=missing(recovery.standby_highwaters, recovery.standby_offsets),
            stores=[
                StoreSize(table.name, partition, entries, file_bytes)
                for table in app.tables.values()
                if isinstance(table, WorkerTable)
                for partition, (entries, file_bytes) in table.sizes().items()
            ],
            kafka_answers=kafka_answers,
        )

    async def _lags(self) -> tuple[list[PartitionLag], bool]:
        """Return the lags, and whether Kafka answered."""
        consumer = self._app._consumer  # its property would make one
        if consumer is None:
            return [], True
        # One without a partition asks for one of somebody else's.
        owned = list(consumer._committed_offset)
        ends = await self._ends(owned or [TP(topic, 0) for topic in self._app.agents][:1])
        unacked = [(message.tp, message.timestamp) for message in list(consumer.unacked)]
        found = lags(dict(consumer._committed_offset), ends, unacked, time.time())
        return found, bool(ends)

    async def _ends(self, tps: list[TP]) -> Mapping[TP, int]:
        """Return where the partitions end, nothing where Kafka does not say so in time.

        Faust's consumer answers from a thread of its own, where two calls that hang would hold up
        its commits: it is not called again before it has answered.
        """
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.ensure_future(self._app.consumer.highwaters(*tps))
        await asyncio.wait({asking}, timeout=ENDS_SECONDS)
        if not asking.done() or asking.exception() is not None:
            return {}
        return asking.result()


def lags(
    committed: Mapping[TP, int | None],
    ends: Mapping[TP, int],
    unacked: Iterable[tuple[TP, float]],
    now: float,
) -> list[PartitionLag]:
    """Return the lag of every partition that has a position.

    Args:
        committed: positions; None at the start of a topic.
        ends: the offsets after the newest records, as far as they are known.
        unacked: the partition and the time, in seconds, of each record that was read.
        now: the time, in seconds.

    """
    in_flight: Counter[TP] = Counter()
    oldest: dict[TP, float] = {}
    for tp, at in unacked:
        in_flight[tp] += 1
        oldest[tp] = min(at, oldest.get(tp, at))
    found = []
    for tp, position in committed.items():
        records = max(0, ends[tp] - (position or 0)) if tp in ends else None
        seconds = None if records or records is None else 0.0
        if tp in oldest:
            seconds = max(0.0, now - oldest[tp])
        found.append(PartitionLag(tp.topic, tp.partition, records, in_flight[tp], seconds))
    return found


def missing(ends: Mapping[TP, int | None], reached: Mapping[TP, int | None]) -> int:
    """Return how many changelog records are missing; both are offsets of a last record."""
    behind = 0
    for tp, end in ends.items():
        at = reached.get(tp)
        behind += max(0, (-1 if end is None else end) - (-1 if at is None else at))
    return behind
