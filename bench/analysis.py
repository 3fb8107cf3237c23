"""Analysis: the worker against the analyzers alone, against its endpoint, and beside captures."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bench import data
from bench.contest import PARTITIONS, Backlog, Contestant, work_through
from bench.figures import Figure
from bench.load import post
from bench.run import BenchError, Run, say
from bench.worker import clients
from openbat.connection import Connection
from openbat.kafka import migrate_topics
from openbat.status.groups import look_at_roles
from schemas import topics
from schemas.records import AnalysisItem, NewMessage, analysis_codec, decode_captured, encode
from tests.brokers import brokers
from tests.llm import LlmEndpoint
from tests.soak.workers import worker
from tests.stack import ROOT, Stack, wait_until

CAPTURES_PER_RECORD = 32
LATENCY_SECONDS, CONCURRENCY = 0.5, 8
BACKLOG_MESSAGES = 150_000
BESIDE_SECONDS = 6
"""How long captures are posted beside it; with its start, two thirds of what the backlog takes."""
SHORTER = 2
"""Offline, rounds are half as long and twice as many: a machine's speed changes within one."""
LATENCY_RATES = (50, 300)
"""Captures a second. On two cores the higher leaves a quarter of the processor to analysis."""
DRAINED_SECONDS = 180.0
READY_SECONDS = 60.0

Record = tuple[int, bytes]
"""A partition, and an `analysis` record."""


def measure(run: Run, directory: Path) -> list[Figure]:
    """Compare the worker with its analyzers in a bare loop, and with what an endpoint allows."""
    figures = []
    for name, compare in (("offline", _offline), ("llm", _model)):
        # A broker for each: what the one puts off would be work of the other's.
        with brokers(directory / f"{name}-kafka") as (broker,):
            asyncio.run(migrate_topics(broker.connection, PARTITIONS, replication_factor=1))
            figures.append(compare(run, broker.connection, directory / name))
    return figures


def records_of(captures: list[data.Frame]) -> list[Record]:
    """Return what the conversations worker would write for captures that came just now."""
    now = time.time_ns() // 1000
    items: list[tuple[int, AnalysisItem]] = []
    for at, (conversation_id, frame) in enumerate(captures):
        captured = decode_captured(frame)
        new = [
            NewMessage(
                message.id, message.role, message.content, message.sent_at, now,
                (at << 7) + index,
            )
            for index, message in enumerate(captured.messages)
        ]  # fmt: skip
        item = AnalysisItem(captured.chatbot_id, conversation_id, msgspec.Raw(encode(new)), now)
        items.append((topics.partition_of(conversation_id, PARTITIONS), item))
    found = []
    for partition in range(PARTITIONS):
        own = [item for where, item in items if where == partition]
        for start in range(0, len(own), CAPTURES_PER_RECORD):
            part = own[start : start + CAPTURES_PER_RECORD]
            found.append((partition, analysis_codec.encode(part)))
    return found


def _offline(run: Run, connection: Connection, directory: Path) -> Figure:
    figure = Figure(
        "analysis worker, offline", "messages/CPU-s", "its analyzers in a bare loop", 0.8, 0.9
    )
    with worker(connection, directory, role="analysis") as analysing:
        analysing.wait_ready()
        asyncio.run(_contest(run, connection, analysing.running.pid, directory, figure))
    return figure


async def _contest(
    run: Run, connection: Connection, pid: int, directory: Path, figure: Figure
) -> None:
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        async with clients(connection) as (producer, reader):
            clock: list[float] = []
            own = Contestant("analysis worker", (pid,), topics.ANALYSIS, _through(admin, reader))
            for at in range(-1, SHORTER * run.rounds):
                records = records_of(data.frames(f"a{at}", run.captures // SHORTER))
                path = directory / "records.msgpack"
                path.write_bytes(msgspec.msgpack.encode([value for _, value in records]))
                messages, before = await asyncio.to_thread(_bare, path)
                backlog = Backlog([(where, None, value) for where, value in records], messages)
                speed = await work_through(own, backlog, producer)
                # Once more: what the machine was meanwhile lies between the two.
                _, after = await asyncio.to_thread(_bare, path)
                bare = 2 * messages / (before + after)
                clock.append(speed.wall)
                say(
                    f"analysis, round {at + 1}: {speed.cpu:,.0f} messages per CPU-second; "
                    f"bare loop {bare:,.0f}"
                )
                if at >= 0:
                    figure.add(speed.cpu, bare)
            figure.note = (
                f"on the clock the worker takes {median(clock):,.0f} messages/s, on two cores"
            )
    finally:
        await admin.close()


def _through(admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer) -> Callable[[], Awaitable[int]]:
    """Return the progress of a worker: records that are done, less those that it put off."""
    later = [TopicPartition(topics.ANALYSIS_LATER, at) for at in range(PARTITIONS)]

    async def progress() -> int:
        # The ends first: what is put off after them is not committed yet either.
        ends: int = sum((await reader.end_offsets(later)).values())
        found = await admin.list_consumer_group_offsets(topics.ANALYSIS_GROUP)
        done: int = sum(max(each.offset, 0) for each in found.values())
        return done - ends

    return progress


def _bare(path: Path) -> tuple[int, float]:
    """Return how many messages the bare loop judged, and its processor seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.bare_analysis", str(path)],
        capture_output=True, text=True, check=True, timeout=600, cwd=ROOT,
    )  # fmt: skip
    messages, seconds = done.stdout.split()
    return int(messages), float(seconds)


def _model(run: Run, connection: Connection, directory: Path) -> Figure:
    figure = Figure(
        "analysis worker, a model", "calls/s", "concurrency / latency", 0.9, 0.95,
        note=f"an endpoint that takes {LATENCY_SECONDS} s, {CONCURRENCY} calls at once",
    )  # fmt: skip
    with LlmEndpoint() as endpoint:
        endpoint.latency_seconds = LATENCY_SECONDS
        settings = {
            "OPENBAT_ANALYZERS": "llm",
            "OPENBAT_LLM_URL": endpoint.url,
            "OPENBAT_LLM_MODEL": "fixed",
            "OPENBAT_LLM_CONCURRENCY": str(CONCURRENCY),
        }
        with worker(connection, directory, role="analysis", **settings) as analysing:
            analysing.wait_ready()
            records = records_of(data.frames("m", 10 * run.captures))
            asyncio.run(_write(connection, records))
            for at in range(-1, run.rounds):
                before, started = len(endpoint.asked), time.monotonic()
                time.sleep(run.seconds)
                calls = len(endpoint.asked) - before
                rate = calls / (time.monotonic() - started)
                say(f"analysis by a model, round {at + 1}: {rate:.1f} calls/s")
                if at >= 0:
                    figure.add(rate, CONCURRENCY / LATENCY_SECONDS)
    return figure


async def _write(connection: Connection, records: list[Record]) -> None:
    async with clients(connection) as (producer, _):
        for partition, value in records:
            await producer.send(topics.ANALYSIS, value, partition=partition)
        await producer.flush()


def beside(run: Run, stack: Stack) -> list[Figure]:
    """Compare captures' latency while a backlog is analysed with that when all is done.

    Args:
        run: how many rounds.
        stack: with one analysis worker.

    """
    figures = []
    for rate in LATENCY_RATES:
        figure = Figure(
            f"exact answer, p50, {BACKLOG_MESSAGES:,} messages to analyse, {rate} captures/s",
            "ms", "with none", 1.5, 1.2, is_cost=True,
            note="the analysis worker takes what is left",
        )  # fmt: skip
        for at in range(-1, run.rounds):
            wait_until(lambda: not _lag(stack), DRAINED_SECONDS, "all is analysed and written")
            idle = _latency(stack, f"i{rate}-{at}", rate)
            captures = data.frames(f"b{rate}-{at}", BACKLOG_MESSAGES // data.TURN)
            asyncio.run(_write(stack.connection, records_of(captures)))
            busy = _latency(stack, f"j{rate}-{at}", rate)
            if not _lag(stack):
                raise BenchError(f"the backlog was analysed within {BESIDE_SECONDS} s")
            say(
                f"latency at {rate} captures/s beside analysis, round {at + 1}: {busy:.1f} ms; "
                f"without {idle:.1f} ms"
            )
            if at >= 0:
                figure.add(busy, idle)
        figures.append(figure)
    return figures


def _lag(stack: Stack) -> int:
    """Return how many records wait for any of the stack's workers."""
    roles = asyncio.run(look_at_roles(stack.connection))
    return sum(topic.lag_records for role in roles for topic in role.topics)


def _latency(stack: Stack, name: str, rate: int) -> float:
    found = post(stack, name, rate, BESIDE_SECONDS)
    if found.inexact:
        raise BenchError(f"not every capture was answered exactly: {found}")
    return found.p50
