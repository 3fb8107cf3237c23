"""The analysis worker, killed right before and after each durable step: every result is there.

It reads a log of its own, so that a moment is always reached; results are read from `analyses`.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from openbat.connection import Connection
from openbat.kafka import migrate_topics, start_producer
from schemas import sizes, topics
from schemas.analyses import analyses_codec
from schemas.capture import Role
from schemas.records import AnalysisItem, NewMessage, analysis_codec, encode
from tests.brokers import brokers
from tests.captures import read_partition
from tests.crash import failpoints
from tests.llm import Fault, LlmEndpoint
from tests.soak.workers import worker
from tests.stack import wait_until

PARTITIONS = 2
CONVERSATIONS, TURNS = 24, 12
"""For each moment."""
CHATBOT = b"\x07" * 16
SECONDS = 60.0
LATENCY_SECONDS = 0.05
"""Of the model: longer than the log takes, so that a kill finds few answers that are not kept."""
AWAY = Fault("status", 503)
"""A model that is away has all put off; of a busy chatbot, a quick machine does nothing."""

Result = tuple[bytes, str, str, str]
"""A conversation, a message, a kind and an analyzer."""


class Given(NamedTuple):
    """A broker, an endpoint, and where the worker keeps its table and finds its failpoints."""

    connection: Connection
    endpoint: LlmEndpoint
    directory: Path
    failpoints: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "OPENBAT_ANALYZERS": "offline,llm",
            "OPENBAT_LLM_URL": self.endpoint.url,
            "OPENBAT_LLM_MODEL": "made-up",
            "OPENBAT_QUIET_SECONDS": "2",
            **failpoints.environment(self.failpoints),
        }


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    with ExitStack() as exits:
        (broker,) = exits.enter_context(brokers(tmp_path))
        asyncio.run(migrate_topics(broker.connection, PARTITIONS, replication_factor=1))
        endpoint = exits.enter_context(LlmEndpoint())
        endpoint.latency_seconds = LATENCY_SECONDS
        yield Given(broker.connection, endpoint, tmp_path / "worker", tmp_path / "failpoints")


def conversation_of(lap: int, number: int) -> bytes:
    return bytes([number % PARTITIONS, 0, 0, number]) * 3 + lap.to_bytes(4)


def items(lap: int) -> list[AnalysisItem]:
    """Return new messages, in conversations of the lap's own."""
    now = time.time_ns() // 1000
    made = []
    for number in range(CONVERSATIONS):
        roles: list[Role] = ["user", "assistant"] * (TURNS // 2)
        new = [
            NewMessage(f"m{at}", role, f"{lap} {number} {at} great", now, now, (lap << 20) + at)
            for at, role in enumerate(roles)
        ]
        raw = msgspec.Raw(encode(new))
        made.append(AnalysisItem(CHATBOT, conversation_of(lap, number), raw, now))
    return made


def expected(laps: int) -> set[Result]:
    of_roles = {"user": ("sentiment", "intent", "topics", "flags"), "assistant": ("behaviour",)}
    found: set[Result] = set()
    for lap in range(laps):
        for number in range(CONVERSATIONS):
            conversation = conversation_of(lap, number)
            for analyzer in ("offline", "llm:made-up"):
                found.add((conversation, "", "resolution", analyzer))
                found |= {
                    (conversation, f"m{at}", kind, analyzer)
                    for at in range(TURNS)
                    for kind in of_roles["assistant" if at % 2 else "user"]
                }
    return found


async def write(connection: Connection, lap: int) -> None:
    producer = await start_producer(connection, sizes.BATCH)
    try:
        for item in items(lap):
            partition = topics.partition_of(item.conversation_id, PARTITIONS)
            value = analysis_codec.encode([item])
            await producer.send_and_wait(topics.ANALYSIS, value, partition=partition)
    finally:
        await producer.stop()


async def results(connection: Connection) -> set[Result]:
    found: set[Result] = set()
    for partition in range(PARTITIONS):
        for _, value in await read_partition(connection, topics.ANALYSES, partition):
            assert value is not None
            for analysed in analyses_codec.decode(value):
                found |= {
                    (analysed.conversation_id, each.message_id, finding.kind, each.analyzer)
                    for each in analysed.results
                    for finding in each.findings
                }
    return found


@pytest.mark.timeout(900)
def test_kills_at_each_durable_step_lose_no_result(given: Given) -> None:
    for lap, moment in enumerate(failpoints.ANALYSIS):
        with worker(
            given.connection, given.directory, role="analysis", **given.settings
        ) as analysing:
            analysing.wait_ready()
            failpoints.arm(given.failpoints, moment)
            given.endpoint.always = AWAY if topics.ANALYSIS_LATER in moment else None
            asyncio.run(write(given.connection, lap))
            wait_until(
                lambda running=analysing.running: running.poll() is not None, SECONDS, moment
            )
        assert not failpoints.disarm(given.failpoints, moment)
    given.endpoint.always = None
    laps = len(failpoints.ANALYSIS)
    wanted = expected(laps)
    with worker(given.connection, given.directory, role="analysis", **given.settings) as analysing:
        analysing.wait_ready()
        wait_until(
            lambda: len(asyncio.run(results(given.connection))) >= len(wanted), SECONDS, "results"
        )
    assert asyncio.run(results(given.connection)) == wanted
    # What was answered is read from the changelog; only what a kill overtook is asked again.
    asked = given.endpoint.times_asked()
    assert asked.total() / len(asked) < 1.5
