"""Why a worker is not ready, and that only itself makes it not alive."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from openbat import worker_metrics
from openbat.clickhouse_writer import clickhouse_reasons
from openbat.health import ALIVE, READY, STUCK
from openbat.metrics import FAILING_SECONDS, InsertMetrics
from openbat.worker_health import STARTING, STOPPING, WorkerHealth, reasons_of
from openbat.worker_metrics import NOT_YET, WorkerCollector
from streams.progress import Look, Progress

WELL = NOT_YET._replace(ready=True)
AWAY = "ClickHouse does not answer."


@pytest.mark.parametrize(
    ("seen", "reasons"),
    [
        (WELL, []),
        (WELL._replace(recovering=0, standby_recovering=9), []),
        (NOT_YET, ["The consumer group has not given it its partitions yet."]),
        (
            NOT_YET._replace(recovering=12),
            ["The table is being recovered: it lacks 12 changelog records."],
        ),
        (WELL._replace(kafka_answers=False), ["Kafka does not answer."]),
        (
            NOT_YET._replace(kafka_answers=False),
            [
                "The consumer group has not given it its partitions yet.",
                "Kafka does not answer.",
            ],
        ),
    ],
)
def test_each_state_has_its_reason(seen: Look, reasons: list[str]) -> None:
    assert reasons_of(seen) == reasons


class Seen:
    """A progress that is known."""

    def __init__(self, look: Look) -> None:
        self._look = look

    async def look(self) -> Look:
        return self._look


def health_of(look: Look) -> WorkerHealth:
    """Return the health of a worker that has started, and looks so."""
    loop = asyncio.get_running_loop()
    state = WorkerCollector(loop)
    state.progress = cast("Progress", Seen(look))
    health = WorkerHealth(loop, state.look)
    health.starting = None
    return health


async def asked(check: Callable[[], Any]) -> list[str]:
    """Return what a check says in another thread, as the server asks it."""
    return list(await asyncio.to_thread(check))


async def test_a_worker_is_ready_from_its_start_to_its_end() -> None:
    health = health_of(WELL)
    ready, alive = health.paths()[READY], health.paths()[ALIVE]
    health.starting = STARTING
    assert await asked(ready) == [STARTING]
    health.starting = None
    assert await asked(ready) == []
    health.checks.append(lambda: [AWAY])
    assert await asked(ready) == [AWAY]
    health.stopping = True
    assert await asked(ready) == [STOPPING]
    assert await asked(alive) == []


async def test_what_is_away_is_no_reason_for_a_restart() -> None:
    health = health_of(NOT_YET._replace(kafka_answers=False))
    health.checks.append(lambda: [AWAY])
    assert len(await asked(health.unready)) == 3
    assert await asked(health.stuck) == []


@pytest.mark.parametrize("starting", [None, STARTING])
async def test_a_loop_that_does_not_turn_is_told(
    monkeypatch: pytest.MonkeyPatch, starting: str | None
) -> None:
    monkeypatch.setattr("openbat.health.LOOK_SECONDS", 0.05)
    monkeypatch.setattr(worker_metrics, "LOOK_SECONDS", 0.05)
    health = health_of(WELL)
    health.starting = starting
    asking = asyncio.gather(asked(health.stuck), asked(health.unready))
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 - it is what the test is about
    assert list(await asking) == [[STUCK], [STUCK]]
    assert await asked(health.stuck) == []


def test_inserts_that_fail_are_told_until_they_go_well_or_none_is_tried() -> None:
    now = 100.0
    inserts = InsertMetrics(CollectorRegistry(), ["a", "b"], lambda: now)

    def reasons(*, answers: bool = True) -> list[str]:
        return clickhouse_reasons(inserts, lambda: answers)

    assert reasons() == []
    assert reasons(answers=False) == [AWAY]
    inserts.repeated("a")
    now += 30
    inserts.repeated("a")
    inserts.repeated("b")
    assert reasons() == [
        "ClickHouse has not taken inserts into a for 30 s.",
        "ClickHouse has not taken inserts into b for 0 s.",
    ]
    inserts.inserted("b", 1, 0.1)
    assert reasons(answers=False) == ["ClickHouse has not taken inserts into a for 30 s.", AWAY]
    # The last of its rows was one that is never taken: nothing is tried any more.
    now += FAILING_SECONDS
    assert reasons() == []
