"""What a capture costs as the table and the conversations grow, and with a second worker."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid5

from aiokafka import AIOKafkaProducer

from bench import data
from bench.contest import PARTITIONS, Contestant, idle, work_through
from bench.figures import Figure, Reading
from bench.run import Run, say
from bench.worker import clients, of_records, ours
from openbat.connection import Connection
from openbat.kafka import migrate_topics
from schemas.capture import MAX_MESSAGES
from schemas.records import Captured, CapturedMessage, encode
from tests.brokers import brokers
from tests.resident import resident_mib
from tests.soak.workers import worker

SMALL = 10_000
FILLED_AT_ONCE = 500_000
IDS_PER_CAPTURE = MAX_MESSAGES
SIZE = 8
"""Captures a record."""
LONG, SHORT = 100_000, 10
OWNER = UUID(int=2)


def measure(run: Run, directory: Path) -> tuple[list[Figure], list[Reading]]:
    """Compare processor seconds per capture."""
    with ExitStack() as exits:
        connections = []
        pids = []
        for name in ("large", "small"):
            (broker,) = exits.enter_context(brokers(directory / name))
            asyncio.run(migrate_topics(broker.connection, PARTITIONS, replication_factor=1))
            running = exits.enter_context(worker(broker.connection, directory / name / "worker"))
            running.wait_ready()
            connections.append(broker.connection)
            pids.append(running.running.pid)
        return asyncio.run(_contest(run, connections, pids))


async def _contest(
    run: Run, connections: list[Connection], pids: list[int]
) -> tuple[list[Figure], list[Reading]]:
    table = Figure(
        f"a capture, {run.ids:,} ids in the table", "µs of processor time",
        f"{SMALL:,} ids", 1.3, 1.1, is_cost=True,
    )  # fmt: skip
    conversation = Figure(
        f"a capture, conversation of {LONG:,} messages", "µs of processor time",
        f"of {SHORT}", 1.5, 1.1, is_cost=True,
    )  # fmt: skip
    readings = []
    async with clients(connections[0]) as (producer, reader), clients(connections[1]) as others:
        large, small = ours(reader, pids[0]), ours(others[1], pids[1])
        for number, ids in enumerate(_amounts(run.ids)):
            await _fill(large, producer, number, ids)
            total = number * FILLED_AT_ONCE + ids
            if total in {FILLED_AT_ONCE * 2, run.ids}:
                readings.append(
                    Reading(f"memory of conversations, {total:,} ids", resident_mib(pids[0]), "MiB")
                )
        await _fill(small, others[0], 0, SMALL)
        await idle(large)
        for at in range(-1, run.rounds):
            backlog = of_records(data.frames(f"t{at}", run.captures), SIZE)
            costs = [
                1e6 / (await work_through(contestant, backlog, each)).cpu
                for contestant, each in ((large, producer), (small, others[0]))
            ]
            say(f"a capture costs {costs[0]:.1f} µs with many ids, {costs[1]:.1f} with few")
            if at >= 0:
                table.add(*costs)

        await work_through(large, of_records(_turns("long", 0, LONG), SIZE), producer)
        for at in range(-1, run.rounds):
            start = LONG + (at + 1) * run.captures * data.TURN
            long = of_records(_turns("long", start, run.captures * data.TURN), SIZE)
            short = of_records(
                [
                    frame
                    for number in range(run.captures * data.TURN // SHORT)
                    for frame in _turns(f"short {at} {number}", 0, SHORT)
                ],
                SIZE,
            )
            costs = [
                1e6 / (await work_through(large, each, producer)).cpu for each in (long, short)
            ]
            say(
                f"a capture costs {costs[0]:.1f} µs in a long conversation, {costs[1]:.1f} in short"
            )
            if at >= 0:
                conversation.add(*costs)
    return [table, conversation], readings


def _amounts(ids: int) -> Iterator[int]:
    for start in range(0, ids, FILLED_AT_ONCE):
        yield min(FILLED_AT_ONCE, ids - start)


async def _fill(contestant: Contestant, producer: AIOKafkaProducer, number: int, ids: int) -> None:
    """Give the worker captures with so many ids in all, each in a conversation of its own."""
    captures = [
        _frame(f"fill {number} {at}", range(IDS_PER_CAPTURE), "")
        for at in range(ids // IDS_PER_CAPTURE)
    ]
    speed = await work_through(contestant, of_records(captures, SIZE), producer)
    say(f"{contestant.name}: filled with {ids:,} more ids, {speed.wall * IDS_PER_CAPTURE:,.0f}/s")


def _turns(name: str, start: int, messages: int) -> list[data.Frame]:
    """Return captures of one conversation, from a message on."""
    return [
        _frame(name, range(at, at + data.TURN), "please help me to change my plan")
        for at in range(start, start + messages, data.TURN)
    ]


def _frame(name: str, numbers: range, content: str) -> data.Frame:
    conversation_id = uuid5(OWNER, name).bytes
    messages = [
        CapturedMessage(
            f"message-{at}", "assistant" if at % 2 else "user", content, data.RECEIVED_AT, True
        )
        for at in numbers
    ]
    captured = Captured(OWNER.bytes, conversation_id, name, data.RECEIVED_AT, False, messages, {})
    return conversation_id, encode(captured)
