"""Poison straight in the topics, among good records: all of those count, and no process dies."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from schemas import sizes, topics
from schemas.capture import MAX_MESSAGES
from schemas.chatbots import GENERATION_KEY
from schemas.records import Captured, CapturedMessage, encode
from tests.fuzz import corpus
from tests.fuzz.cases import Cases
from tests.fuzz.conftest import Effort
from tests.fuzz.mutations import foreign, mutated
from tests.fuzz.neighbours import ROW_SECONDS, Neighbours
from tests.fuzz.poisoner import MESSAGES, NOW, Poisoner, poisoner
from tests.fuzz.targets import TARGETS
from tests.report import Report
from tests.stack import Stack

SHORT, LONG = 25, 1_500
POISON = "poison"
KEY = b"\0"
"""A compacted topic takes no record without a key."""
MONTH = 2_629_800_000_000
"""In microseconds."""
RAW_TOPICS = {
    topics.CAPTURES: "captures",
    topics.MESSAGES: "messages",
    topics.ANALYSIS: "analysis",
    topics.ANALYSIS_LATER: "analysis",
    topics.ANALYSES: "analyses",
    topics.SPENDING: "spending",
    topics.REPLIES: "replies",
    topics.DEAD_LETTERS: "dead-letters",
}


class Round(NamedTuple):
    """What is sent at once: bad frames in one record with good ones, and bad records."""

    frames: list[bytes]
    records: dict[str, bytes]
    chatbot: tuple[bytes, bytes]
    generation: bytes


def _bad(name: str) -> SearchStrategy[bytes]:
    target = TARGETS[name]
    kept = st.sampled_from(corpus.seeds(name))
    valid = target.values.map(lambda value: target.version + value)
    return mutated(valid | kept) | foreign(target.values, target.version) | kept


ROUNDS = st.builds(
    Round,
    st.lists(_bad("frame"), min_size=1, max_size=4),
    st.fixed_dictionaries({topic: _bad(name) for topic, name in RAW_TOPICS.items()}),
    # Under no chatbot's id, and a generation of no known version: others would count.
    st.tuples(st.binary(min_size=1, max_size=15), _bad("chatbots")),
    st.binary(max_size=5).map(lambda data: b"\x09" + data),
)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Return what runs coroutines between hypothesis's examples."""
    with asyncio.Runner() as made:
        yield made


@pytest.mark.timeout(3600)
def test_poison_in_every_topic(
    hostile: Stack,
    neighbours: Neighbours,
    runner: asyncio.Runner,
    cases: Cases,
    effort: Effort,
    report: Report,
) -> None:
    connected = poisoner(hostile)
    poisoning = runner.run(connected.__aenter__())

    @effort(SHORT, LONG)
    @given(ROUNDS)
    def poison(made: Round) -> None:
        for _ in range(len(made.frames) + len(made.records) + 2):
            cases.add(POISON)
        runner.run(_send(poisoning, made))

    try:
        poison()
    finally:
        runner.run(connected.__aexit__(None, None, None))
    report.add("poison: bad frames and records", cases.count(POISON), bound="no process dies")
    _assert_good_ones_are_there(hostile, poisoning, report, "poison")


async def _send(poisoning: Poisoner, made: Round) -> None:
    for topic, value in made.records.items():
        await poisoning.raw(topic, value, KEY)
    for topic in (topics.CAPTURES, topics.MESSAGES, topics.REPLIES):
        await poisoning.raw(topic, None, KEY)
    key, chatbot = made.chatbot
    await poisoning.raw(topics.CHATBOTS, chatbot, key)
    await poisoning.raw(topics.CHATBOTS, made.generation, GENERATION_KEY)
    await poisoning.captures(made.frames)


@pytest.mark.timeout(600)
async def test_good_captures_that_are_unlike_any_other(
    hostile: Stack, neighbours: Neighbours, full: bool, report: Report
) -> None:
    """What decodes, and would be too much for one output, one reply or one insert."""
    async with poisoner(hostile) as poisoning:
        # Of more months than ClickHouse takes in one insert by default.
        frames = [poisoning.good(0, NOW - month * MONTH) for month in range(150)]
        await poisoning.exactly(0, frames, dict.fromkeys(range(150), MESSAGES))
        # Larger than any that a gateway sends.
        await poisoning.captures([bytes(sizes.CAPTURE + 1)])
        await poisoning.raw(topics.CAPTURES, b"\1" + bytes(sizes.CAPTURES_RECORD))
        await poisoning.raw(topics.MESSAGES, b"\1" + bytes(sizes.OUTPUT_RECORD))
        # A reply that would name more fields than its topic takes, messages of one conversation
        # that are more than an output takes.
        await poisoning.captures([_full(), *[_many_fields()] * (200 if full else 2)])
        await poisoning.captures([_many_messages(number) for number in range(2000 if full else 5)])
    await asyncio.to_thread(
        _assert_good_ones_are_there, hostile, poisoning, report, "poison that is much"
    )


def _full() -> bytes:
    return _of_fields({"x": "x" * (sizes.FIELDS - 100)})


def _many_fields() -> bytes:
    return _of_fields({f"{number:03x}": 1 for number in range(4096)})


def _of_fields(members: dict[str, object]) -> bytes:
    fields = {"organization": members}
    return encode(Captured(bytes(16), bytes(16), "fields", NOW, True, [], fields))


def _many_messages(number: int) -> bytes:
    sent = [
        CapturedMessage(f"{number:x}.{at}", "user", "", NOW, True) for at in range(MAX_MESSAGES)
    ]
    return encode(Captured(bytes(16), bytes(15) + b"\1", "messages", NOW, True, sent, {}))


def _assert_good_ones_are_there(
    hostile: Stack, poisoning: Poisoner, report: Report, what: str
) -> None:
    query = (
        "SELECT count() AS rows FROM openbat.messages "
        f"WHERE startsWith(external_conversation_id, '{poisoning.prefix}-')"
    )
    expected = [{"rows": poisoning.messages}]
    found = hostile.wait_sql(query, expected, ROW_SECONDS)
    report.add(
        f"{what}: messages of good captures in the same records",
        found[0]["rows"],
        bound=f"{poisoning.messages}, each answered exactly",
        holds=found == expected,
    )
    assert found == expected
