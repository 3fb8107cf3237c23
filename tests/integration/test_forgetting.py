"""Message ids that a chatbot lets be forgotten, on the real stack."""

import asyncio
import contextlib
import time
from uuid import UUID

import httpx
import pytest
from aiokafka.errors import InvalidTimestampError

from openbat.kafka import captures_partitions, start_producer
from schemas import sizes, topics
from schemas.codec import UndecodableError
from schemas.records import Captured, CapturesRecord, captures_codec, decode_captured
from streams.entries import IDS
from streams.forgetting import DAY_MICROSECONDS
from tests.captures import Log, captured, open_log, read_partition
from tests.stack import Stack, wait_until

DAYS = 8
NOW = time.time_ns() // 1000
SWEEP_SECONDS = 20


def made(chatbot_id: UUID, name: str, day: float, *ids: str, remember_days: int = DAYS) -> Captured:
    at = NOW + round(day * DAY_MICROSECONDS)
    return captured(chatbot_id, name, at, ids, remember_days)


def neighbour(chatbot_id: UUID, log: Log, partition: int) -> str:
    """Return a conversation of the same partition."""
    return next(
        name
        for name in (f"neighbour-{number}" for number in range(10_000))
        if log.partition_of(made(chatbot_id, name, 0)) == partition
    )


def test_the_gateway_stamps_what_is_set(stack: Stack) -> None:
    key = stack.make_chatbot("forgetful")
    stack.openbat("chatbots", "set", "forgetful", f"remember-ids={DAYS}")
    assert f"remember-ids   {DAYS}\n" in stack.openbat("chatbots", "show", "forgetful").stdout
    body = {
        "conversationId": "stamped",
        "messages": [{"id": "a", "role": "user", "content": "x"}],
    }
    headers = {"Authorization": f"Bearer {key}"}

    def stamped() -> bool:
        answer = httpx.post(f"{stack.gateway_url}/api/v1/capture", json=body, headers=headers)
        assert answer.status_code == 200
        return DAYS in asyncio.run(days_of(stack, "stamped"))

    wait_until(stamped, 10, "the setting in a capture")
    stack.openbat("chatbots", "set", "forgetful", "remember-ids=forever")
    assert "remember-ids   forever\n" in stack.openbat("chatbots", "show", "forgetful").stdout


async def days_of(stack: Stack, name: str) -> set[int]:
    """Return the days that captures of a conversation were stamped with."""
    found = set()
    for partition in range(await captures_partitions(stack.connection)):
        for _, value in await read_partition(stack.connection, topics.CAPTURES, partition):
            with contextlib.suppress(UndecodableError):  # other tests write poison
                for frame in captures_codec.decode(value or b"").captures:
                    if name.encode() in frame:
                        found.add(decode_captured(frame).remember_days)
    return found


async def test_ids_are_new_again_after_the_days_and_their_entries_are_swept(stack: Stack) -> None:
    chatbot_id = UUID(int=12)
    async with open_log(stack.connection) as log:
        assert await log.ask([made(chatbot_id, "old", 0, "a", "b")]) == [2]
        partition = log.partition_of(made(chatbot_id, "old", 0))
        name = neighbour(chatbot_id, log, partition)
        assert await log.ask([made(chatbot_id, "old", 7.9, "a")]) == [0]
        assert await log.ask([made(chatbot_id, "old", 8.1, "a", "c")]) == [2]
        assert await log.ask([made(chatbot_id, "old", 8.2, "a", "b")]) == [1]
        assert await log.ask([made(chatbot_id, name, 8.3, "a", remember_days=0)]) == [1]

        async def entries(conversation: str) -> list[bytes | None]:
            found = dict(
                await read_partition(stack.connection, topics.CONVERSATIONS_CHANGELOG, partition)
            )
            prefix = IDS + made(chatbot_id, conversation, 0).conversation_id
            return [value for key, value in found.items() if key.startswith(prefix)]

        day = 30.0
        async with asyncio.timeout(SWEEP_SECONDS):
            while any(await entries("old")):
                day += 1
                assert await log.ask([made(chatbot_id, name, day, "a")]) == [0]
        assert all(await entries(name))
        assert await log.ask([made(chatbot_id, "old", day, "a", "b", "c")]) == [3]


async def test_a_record_of_a_clock_that_runs_ahead_is_refused(stack: Stack) -> None:
    record = captures_codec.encode(CapturesRecord(1, 0, []))
    ahead = time.time_ns() // 1_000_000 + 2 * 3_600_000
    producer = await start_producer(stack.connection, sizes.BATCH)
    try:
        with pytest.raises(InvalidTimestampError):
            await producer.send_and_wait(topics.CAPTURES, record, partition=0, timestamp_ms=ahead)
    finally:
        await producer.stop()
