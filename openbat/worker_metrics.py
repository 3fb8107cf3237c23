"""What a worker's state is, for Prometheus: looked at when it is asked for."""

import asyncio
import time
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from openbat.health import LOOK_SECONDS
from streams.progress import Look, Progress

NOT_YET = Look(ready=False, lags=[], recovering=0, standby_recovering=0, stores=[])


class WorkerCollector(Collector):
    """Has a worker look at itself in its event loop, while Prometheus waits in another thread.

    So nothing changes while it is read. A loop that does not answer is exported as such.

    Args:
        loop: the worker's.

    Attributes:
        progress: looks at the worker; None while it waits for what it needs to be one.

    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.progress: Progress | None = None
        self._loop = loop

    def look(self) -> tuple[float, Look] | None:
        """Return how many seconds the loop took to turn, and the look; None where it took too long.

        Not to be called in the loop's own thread.
        """
        asked_at = time.monotonic()

        async def look() -> tuple[float, Look]:
            delay = time.monotonic() - asked_at
            return delay, await self.progress.look() if self.progress else NOT_YET

        looking = asyncio.run_coroutine_threadsafe(look(), self._loop)
        try:
            return looking.result(LOOK_SECONDS)
        except TimeoutError:
            looking.cancel()
            return None

    def collect(self) -> Iterator[Metric]:
        looked = self.look()
        if looked is None:
            yield _delay(LOOK_SECONDS)
            return
        delay, seen = looked
        yield _delay(delay)
        yield from families(seen)


def _delay(seconds: float) -> Metric:
    return GaugeMetricFamily(
        "openbat_loop_delay_seconds",
        f"How long the worker's event loop took to turn to the scrape; {LOOK_SECONDS:g} where it "
        "did not in that time, and tells nothing else of its state then.",
        value=seconds,
    )


def families(seen: Look) -> Iterator[Metric]:
    """Return a look as Prometheus' metrics; what is not known has no sample."""
    yield GaugeMetricFamily(
        "openbat_ready", "1 once the process can do its work.", value=int(seen.ready)
    )
    partition = ["topic", "partition"]
    records = GaugeMetricFamily(
        "openbat_lag_records", "Records that are there and not committed.", labels=partition
    )
    in_flight = GaugeMetricFamily(
        "openbat_in_flight_records", "Records that were read and are not acked.", labels=partition
    )
    seconds = GaugeMetricFamily(
        "openbat_lag_seconds",
        "Age of the oldest record that was read and is not acked; 0 where nothing is left to do.",
        labels=partition,
    )
    for lag in seen.lags:
        labels = [lag.topic, str(lag.partition)]
        if lag.records is not None:
            records.add_metric(labels, lag.records)
        in_flight.add_metric(labels, lag.in_flight)
        if lag.seconds is not None:
            seconds.add_metric(labels, lag.seconds)
    yield from (records, in_flight, seconds)
    recovering = GaugeMetricFamily(
        "openbat_recovery_remaining_records",
        "Changelog records that the worker's table, or its standby copies, lack yet.",
        labels=["copy"],
    )
    recovering.add_metric(["active"], seen.recovering)
    recovering.add_metric(["standby"], seen.standby_recovering)
    yield recovering
    store = ["table", "partition"]
    entries = GaugeMetricFamily(
        "openbat_store_entries", "Entries of a local store, as RocksDB estimates.", labels=store
    )
    file_bytes = GaugeMetricFamily(
        "openbat_store_bytes", "Size of a local store's files.", labels=store
    )
    for size in seen.stores:
        labels = [size.table, str(size.partition)]
        entries.add_metric(labels, size.entries)
        file_bytes.add_metric(labels, size.file_bytes)
    yield from (entries, file_bytes)
