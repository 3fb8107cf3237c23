"""Everything that the processes export, each metric with a sample of every label."""

import asyncio
from typing import NamedTuple, cast

from prometheus_client import CollectorRegistry, Metric

from gateway.metrics import GatewayMetrics
from openbat.metrics import InsertMetrics, Metrics
from openbat.worker_metrics import WorkerCollector
from streams.progress import Look, PartitionLag, Progress, StoreSize


class Exported(NamedTuple):
    """A metric as the documentation tells it; `name` is a counter's with `_total`."""

    process: str
    name: str
    kind: str
    labels: tuple[str, ...]
    documentation: str


class Looked:
    """A worker that was looked at."""

    async def look(self) -> Look:
        return Look(
            ready=True,
            lags=[PartitionLag("captures", 0, 12, 3, 1.5)],
            recovering=5,
            standby_recovering=7,
            stores=[StoreSize("conversations", 0, 100, 4096)],
        )


async def exported() -> list[Exported]:
    """Return the metrics of every process, in the order in which they are exported."""
    gateway = GatewayMetrics()
    gateway.rate_limited("demo")
    gateway.taken("demo")
    worker = Metrics()
    worker.analysed("offline", "analysed", 1)
    state = WorkerCollector(asyncio.get_running_loop())
    state.progress = cast("Progress", Looked())
    worker.registry.register(state)
    clickhouse = CollectorRegistry()
    InsertMetrics(clickhouse, ["openbat.message_rows"])
    registries = {
        "gateway": gateway.registry,
        "worker": worker.registry,
        "ClickHouse worker": clickhouse,
    }
    found: list[Exported] = []
    for process, registry in registries.items():
        # The loop must be free to look at the worker.
        families = await asyncio.to_thread(list, registry.collect())
        found += [_told(process, family) for family in families]
    return found


def _told(process: str, family: Metric) -> Exported:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = tuple(label for label in family.samples[0].labels if label != "le")
    return Exported(process, name, family.type, labels, family.documentation)


def series(of: Exported) -> set[str]:
    """Return the names that a query may use."""
    if of.kind == "histogram":
        return {of.name + suffix for suffix in ("_bucket", "_sum", "_count")}
    return {of.name}
