"""Each role grows from one process to four and shrinks back, under load that never ends."""

import asyncio
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.outages.rig import at_most, judge, say
from tests.report import Figure, Report
from tests.scaling.conversation import PAIR
from tests.scaling.load import Answer, Load
from tests.scaling.pipeline import MOST, WORKERS, Pipeline, Worker, running, until

ROUNDS = {True: 2, False: 1}
PER_SECOND = {True: 60.0, False: 30.0}
"""Captures, of all clients."""
BACKLOG_SECONDS = {True: 20.0, False: 3.0}
"""How much of the load waits before more workers are started; more of it waits when they are."""
NEAR_SECONDS = 2.5
"""How much of it waits for workers that keep up, at most: they commit once a second."""
MAX_PROVISIONAL = 0.05
"""Share of answers, while no conversations worker is scaled."""
STEP_SECONDS = 60.0
"""What a step may take where other tests keep the machine busy. A worker that is taken away idles
its partitions for a session, 10 s."""

ROWS = """
SELECT external_conversation_id AS name, count() AS rows, uniqExact(message_id) AS ids
FROM openbat.messages GROUP BY name ORDER BY name
"""
COUNTED = """
SELECT external_conversation_id AS name, message_count AS messages
FROM openbat.conversations ORDER BY name
"""
SENTIMENTS = """
SELECT count() AS rows, uniqExact(conversation_id, message_id) AS messages
FROM openbat.analyses WHERE kind = 'sentiment'
"""


class Scaled(NamedTuple):
    """What it took to scale a role from one process to four and back.

    Attributes:
        role: whose.
        waited: records that waited when four were started.
        near: how many wait at most where workers keep up.
        shared: seconds until four had their shares.
        done: seconds after it until no more waited than for workers that keep up.
        alone: seconds, from when three were told to stop, until one did it all and kept up.
        answers: to what was posted meanwhile.

    """

    role: str
    waited: int
    near: float
    shared: float
    done: float
    alone: float
    answers: list[Answer]


class Scaler:
    """Scales roles of a pipeline under load.

    Args:
        pipeline: with one process of each role.
        load: on it.
        backlog_seconds: how much of the load waits before there are more workers.

    """

    def __init__(self, pipeline: Pipeline, load: Load, backlog_seconds: float) -> None:
        self._pipeline = pipeline
        self._load = load
        self._backlog_seconds = backlog_seconds

    async def gateways(self) -> Scaled:
        """Add three gateways, let all take captures, and take three away."""
        pipeline, load = self._pipeline, self._load
        more = [("gateway", number) for number in range(1, MOST)]
        start = time.monotonic()
        await pipeline.start(*more)
        await load.taken_by(pipeline.gateways, STEP_SECONDS)
        shared = time.monotonic() - start
        begun = time.monotonic()
        await pipeline.stop(*more)
        await load.taken_by(pipeline.gateways, STEP_SECONDS)
        alone = time.monotonic() - begun
        return Scaled("gateway", 0, 0.0, shared, 0.0, alone, load.since(start))

    async def grow(self, worker: Worker) -> Scaled:
        """Let records wait, start four workers; return when nothing waits any more."""
        pipeline = self._pipeline
        start = time.monotonic()
        await pipeline.stop((worker.role, 0))
        waited = await self._until_lag(worker, at_least=self._backlog_seconds)
        begun = time.monotonic()
        await pipeline.start(*((worker.role, number) for number in range(MOST)))
        await pipeline.shared_by(worker, MOST, STEP_SECONDS)
        shared = time.monotonic()
        await self._until_lag(worker, at_most=NEAR_SECONDS)
        done = time.monotonic() - shared
        near = NEAR_SECONDS * self._records_a_second(worker)
        answers = self._load.since(start)
        return Scaled(worker.role, waited, near, shared - begun, done, 0.0, answers)

    async def shrink(self, worker: Worker, grown: Scaled) -> Scaled:
        """Take three away; return when one does all that four did."""
        pipeline = self._pipeline
        begun = time.monotonic()
        await pipeline.stop(*((worker.role, number) for number in range(1, MOST)))
        await pipeline.shared_by(worker, 1, STEP_SECONDS)
        await self._until_lag(worker, at_most=NEAR_SECONDS)
        alone = time.monotonic() - begun
        answers = grown.answers + self._load.since(begun)
        return grown._replace(alone=alone, answers=answers)

    def _records_a_second(self, worker: Worker) -> float:
        """Return how many come for a worker at most: a capture is a record of each topic."""
        return self._load.per_second * len(worker.topics)

    async def _until_lag(
        self, worker: Worker, *, at_least: float = 0.0, at_most: float = math.inf
    ) -> int:
        """Wait until a worker's lag is so many seconds of load; return the most records seen."""
        seen = []

        async def reached() -> bool:
            seen.append(await self._pipeline.lag(worker))
            return at_least <= seen[-1] / self._records_a_second(worker) <= at_most

        await until(reached, STEP_SECONDS, f"lag of {worker.role}")
        say(f"lag of {worker.role}: {' '.join(map(str, seen))}")
        return max(seen)


async def one_round(scaler: Scaler, *, in_turn: bool) -> list[Scaled]:
    """Scale each role up and down; return what that took.

    Args:
        scaler: to scale with.
        in_turn: whether a role is back at one before the next one grows.

    """
    found = [await scaler.gateways()]
    shrinking: list[asyncio.Task[Scaled]] = []
    async with asyncio.TaskGroup() as group:
        for worker in WORKERS:
            grown = await scaler.grow(worker)
            shrinking.append(group.create_task(scaler.shrink(worker, grown)))
            if in_turn:
                await shrinking[-1]
    return found + [each.result() for each in shrinking]


def steps(title: str, scaled: Scaled, *, in_turn: bool) -> list[Figure]:
    """Return what scaling a role took; in turn, no other one was scaled meanwhile."""
    answers = scaled.answers
    waits = sorted(answer.seconds for answer in answers)
    share = sum(not answer.is_exact for answer in answers) / len(answers)
    what = f"{title}: share of provisional answers"
    is_bounded = in_turn and scaled.role != "conversations"
    figures = [at_most(f"{title}: four at work after", scaled.shared, STEP_SECONDS, "s")]
    if scaled.role != "gateway":
        waited = f"> {scaled.near:g}"
        holds = scaled.waited > scaled.near
        figures += [
            Figure(f"{title}: records that waited", scaled.waited, "", waited, holds),
            at_most(f"{title}: until no more than usual waited", scaled.done, STEP_SECONDS, "s"),
        ]
    return [
        *figures,
        at_most(f"{title}: one keeps up again after", scaled.alone, 2 * STEP_SECONDS, "s"),
        Figure(f"{title}: answers", len(answers)),
        at_most(what, share, MAX_PROVISIONAL) if is_bounded else Figure(what, share),
        Figure(f"{title}: 99th percentile", 1000 * waits[len(waits) * 99 // 100], "ms"),
    ]


def answers(load: Load) -> list[Figure]:
    """Return what was answered, and what must not have been."""
    failed = sum(answer.status != 200 for answer in load.answers)
    uncounted = sum(each.uncounted for each in load.conversations)
    found = load.conversations
    off = [each.name for each in found if each.exact + each.uncounted != each.messages]
    return [
        Figure("captures answered", len(load.answers)),
        Figure("answered with anything but 200", failed, "", "0", failed == 0),
        Figure("connections that a gateway that had stopped refused", load.refused),
        Figure("connections that broke without an answer", load.broken),
        Figure("messages answered with 200", load.messages),
        Figure("of them counted by a provisional answer alone", uncounted),
        _none("conversations whose exact counts do not sum up to the rest", off),
        _none("wrong answers", load.wrong),
    ]


async def stored(pipeline: Pipeline, load: Load) -> list[Figure]:
    """Return how ClickHouse's rows compare with what was answered."""
    found = sorted(load.conversations, key=lambda each: each.name)
    questions = load.messages // PAIR
    wanted: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "conversations without each message once": (
            ROWS,
            [{"name": each.name, "rows": each.messages, "ids": each.messages} for each in found],
        ),
        "conversations with a wrong message_count": (
            COUNTED,
            [{"name": each.name, "messages": each.messages} for each in found],
        ),
        "sums of sentiments other than one a question": (
            SENTIMENTS,
            [{"rows": questions, "messages": questions}],
        ),
    }
    figures = []
    for what, (query, expected) in wanted.items():
        rows = await asyncio.to_thread(pipeline.stack.wait_sql, query, expected, STEP_SECONDS)
        off = [each for each in expected if each not in rows]
        figures.append(_none(what, off + [each for each in rows if each not in expected]))
    return figures


def _none(what: str, found: list[Any]) -> Figure:
    return Figure(what, f"{len(found)} {found[:3] or ''}".strip(), "", "0", not found)


@pytest.mark.timeout(3600)
async def test_each_role_grows_and_shrinks_under_load(
    full: bool, report: Report, tmp_path: Path
) -> None:
    figures = []
    async with running(tmp_path) as pipeline:
        async with Load(pipeline.gateways, pipeline.chatbots, PER_SECOND[full]) as load:
            scaler = Scaler(pipeline, load, BACKLOG_SECONDS[full])
            for number in range(1, ROUNDS[full] + 1):
                for scaled in await one_round(scaler, in_turn=full):
                    figures += steps(f"{scaled.role}, round {number}", scaled, in_turn=full)
            await load.stop()
            await load.exact_everywhere()
        figures += answers(load) + await stored(pipeline, load)
    judge(report, figures)
