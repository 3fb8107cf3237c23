"""What a worker exports of its state, and when its event loop does not answer."""

import asyncio
import time
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from openbat import worker_metrics
from openbat.health import LOOK_SECONDS
from openbat.worker_metrics import WorkerCollector
from streams.progress import Look, PartitionLag, Progress, StoreSize

LOOK = Look(
    ready=True,
    lags=[
        PartitionLag("captures", 0, 12, 3, 1.5),
        PartitionLag("captures", 1, None, 0, None),
    ],
    recovering=5,
    standby_recovering=7,
    stores=[StoreSize("conversations", 2, 100, 4096)],
)


class Seen:
    """A progress that is known."""

    async def look(self) -> Look:
        return LOOK


def exporting(seen: Seen) -> CollectorRegistry:
    registry = CollectorRegistry()
    state = WorkerCollector(asyncio.get_running_loop())
    state.progress = cast("Progress", seen)
    registry.register(state)
    return registry


async def values(registry: CollectorRegistry) -> dict[tuple[str, tuple[str, ...]], float]:
    families = await asyncio.to_thread(lambda: list(registry.collect()))
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_a_look_is_exported_and_what_is_not_known_is_not() -> None:
    exported = await values(exporting(Seen()))
    assert exported.pop(("openbat_loop_delay_seconds", ())) < LOOK_SECONDS
    assert exported == {
        ("openbat_ready", ()): 1,
        ("openbat_lag_records", ("captures", "0")): 12,
        ("openbat_in_flight_records", ("captures", "0")): 3,
        ("openbat_in_flight_records", ("captures", "1")): 0,
        ("openbat_lag_seconds", ("captures", "0")): 1.5,
        ("openbat_recovery_remaining_records", ("active",)): 5,
        ("openbat_recovery_remaining_records", ("standby",)): 7,
        ("openbat_store_entries", ("conversations", "2")): 100,
        ("openbat_store_bytes", ("conversations", "2")): 4096,
    }


async def test_a_worker_that_waits_for_kafka_is_not_ready() -> None:
    registry = CollectorRegistry()
    registry.register(WorkerCollector(asyncio.get_running_loop()))
    assert (await values(registry))["openbat_ready", ()] == 0


async def test_a_busy_loop_is_exported_as_late() -> None:
    registry = exporting(Seen())
    exporting_it = asyncio.create_task(values(registry))
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - it is what the test is about
    exported = await exporting_it
    assert exported["openbat_loop_delay_seconds", ()] >= 0.1
    assert exported["openbat_ready", ()] == 1


async def test_a_stuck_loop_is_exported_without_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Seen):
        async def look(self) -> Look:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    monkeypatch.setattr(worker_metrics, "LOOK_SECONDS", 0.05)
    assert await values(exporting(Stuck())) == {("openbat_loop_delay_seconds", ()): 0.05}
