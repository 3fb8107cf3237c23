"""What each step of a capture takes in its role, by itself: without Kafka, sockets or threads."""

import gc
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import lz4.frame  # type: ignore[import-untyped]
from aiokafka.producer.message_accumulator import BatchBuilder
from starlette.requests import Request

from bench import data
from bench.figures import Reading
from gateway.auth import authenticate
from gateway.body import Bodies, Held, read_body
from gateway.capture import answer_of, encode_answer
from gateway.decode import captured_of, decode_capture
from gateway.head import Head
from gateway.registry import Registry
from openbat.chatbots import with_key
from schemas import sizes
from schemas.chatbots import chatbot_codec
from schemas.records import (
    Captured,
    CaptureResult,
    analysis_codec,
    decode_captured,
    decode_captures,
    encode,
    messages_codec,
)
from sinks.rows import RowBatch
from streams.apply import Applied, apply_record, needed_keys
from tests.unit.tables import open_table, store_of

LAPS = 8
"""Each a turn of all conversations."""
FIRST_LAPS = 2
"""They make the conversations, so they are not counted."""
SIZE = 16
"""Captures a record."""
PARTITION = 0
KEY = "ob_live_" + "0" * 32
AUTHORIZATION = f"Bearer {KEY}"

T = TypeVar("T")
R = TypeVar("R")


class Steps:
    """Processor time of this thread, by step and lap; without collecting garbage, as `timeit`."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def take(self, name: str, do: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Measure a step of a lap; return what it gives."""
        waiting = list(items)
        gc.disable()
        started = time.thread_time()
        done = [do(item) for item in waiting]
        self._seconds[name].append(time.thread_time() - started)
        gc.enable()
        return done

    def readings(self, captures: int) -> list[Reading]:
        """Return the median of each step's laps, per capture."""
        return [
            Reading(
                f"{self._role}: {name}",
                1e6 * statistics.median(laps[FIRST_LAPS:]) / captures,
                "µs of processor time a capture",
            )
            for name, laps in self._seconds.items()
        ]


def measure(directory: Path) -> list[Reading]:
    """Return what each step takes per capture.

    Args:
        directory: for the table.

    """
    captures = data.CONVERSATIONS
    frames = data.frames("steps", LAPS * captures)
    laps = [frames[at : at + captures] for at in range(0, len(frames), captures)]
    working, outputs = _worker(directory, laps)
    every = (_gateway(captures), working, _clickhouse(outputs))
    return [reading for steps in every for reading in steps.readings(captures)]


def _gateway(captures: int) -> Steps:
    steps = Steps("gateway")
    owner = with_key(data.chatbot(), KEY)
    registry = Registry()
    registry.apply(UUID(owner.id).bytes, chatbot_codec.encode(owner))
    held = Bodies()
    result = CaptureResult(data.TURN)

    async def read(request: Request) -> bytes:
        with Held(held) as holding:
            return await read_body(request, Head(request), sizes.DEFAULT_BODY, holding)

    def captured(body: Any) -> Captured:
        return captured_of(body, owner, data.RECEIVED_AT, None)[0]

    bodies = itertools.cycle(data.bodies())
    for _ in range(LAPS):
        lap = [body.encode() for body in itertools.islice(bodies, captures)]
        steps.take("the key", lambda _: authenticate(AUTHORIZATION, registry.chatbot_of), lap)
        read_bodies = steps.take(
            "head and body", lambda each: _done(read(each)), map(_request, lap)
        )
        decoded = steps.take("decoding", decode_capture, read_bodies)
        made = steps.take("ids, fields and warnings", captured, decoded)
        steps.take("encoding", encode, made)
        steps.take("the answer", lambda each: encode_answer(answer_of(each, {}, result)), made)
    return steps


def _request(body: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [
        (b"host", b"127.0.0.1:8080"),
        (b"authorization", AUTHORIZATION.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    return Request({"type": "http", "headers": headers}, receive)


def _done(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine gives that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


def _worker(directory: Path, laps: list[list[data.Frame]]) -> tuple[Steps, list[list[bytes]]]:
    """Return the steps, and of each lap the records of `messages`."""
    steps = Steps("conversations")
    table = open_table(directory)
    offset = itertools.count()

    def decode(value: bytes) -> list[Captured | None]:
        return [decode_captured(frame) for frame in decode_captures(value).captures]

    def apply(found: tuple[list[Captured | None], dict[bytes, bytes]]) -> Applied:
        return apply_record(found[0], 1, next(offset), found[1])

    def changelog(applied: Applied) -> None:
        builder = BatchBuilder(sizes.CHANGELOG_BATCH, 0)
        for key, value in applied.changelog:
            builder.append(key=key, value=value, timestamp=None)
        builder.close()

    def write(applied: Applied) -> None:
        store_of(table).write(PARTITION, applied.local, next(offset))

    def outputs(applied: Applied) -> bytes:
        analysis_codec.encode(applied.analysis)
        return messages_codec.encode(applied.messages)

    values = []
    for lap in laps:
        records = [value for _, value in data.records(lap, 1, SIZE)]
        captures = steps.take("decoding", decode, records)
        keys = steps.take("keys", needed_keys, captures)
        known = steps.take("reading the table", lambda each: table.read(PARTITION, each), keys)
        applied = steps.take("deduplication and state", apply, zip(captures, known, strict=True))
        steps.take("the changelog's batch", changelog, applied)
        values.append(steps.take("outputs", outputs, applied))
        steps.take("writing the table", write, applied)
    return steps, values


def _clickhouse(laps: list[list[bytes]]) -> Steps:
    steps = Steps("clickhouse")
    for values in laps:
        batch = RowBatch()
        steps.take("rows", partial(batch.add, partition=PARTITION, offset=0), values)
        steps.take("an insert's body", _body, [batch])
    return steps


def _body(batch: RowBatch) -> int:
    """Do as the writer does."""
    encoded = (batch.messages.encoded, batch.conversations.encoded)
    return sum(len(lz4.frame.compress(b"".join(rows))) for rows in encoded)
