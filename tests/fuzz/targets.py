"""What each topic's reader does with a record, with nothing left out but the broker.

Each takes bytes, and raises UndecodableError where they are no record; any other exception would
end a process. What decodes is followed to the end of the pipeline.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec.structs import replace

from gateway.capture import LEFT_OUT
from gateway.decode import captured_of, decode_capture
from gateway.errors import RefusedError
from gateway.limits import OFF, RateLimits
from gateway.pace import Pace
from gateway.registry import Registry
from gateway.replies import Replies, result_at
from schemas import topics
from schemas.capture import CaptureAnswer
from schemas.chatbots import GENERATION_KEY, chatbot_codec
from schemas.codec import UndecodableError
from schemas.dead_letters import DeadLetter, Source, detail_of
from schemas.positions import MAX_GENERATION, MESSAGE_BITS, OFFSET_BITS
from schemas.records import (
    Captured,
    CapturedMessage,
    CapturesRecord,
    RepliesRecord,
    analysis_codec,
    captures_codec,
    decode_captured,
    decode_captures,
    decode_new_messages,
    encode,
    messages_codec,
    replies_codec,
)
from sinks.rows import RowBatch
from streams.apply import Applied, apply_record
from streams.dead_letters import DeadLetters
from streams.entries import (
    MOST_REPLAYED,
    STATE,
    changelog_ids_key,
    changelog_state_key,
    introduced_codec,
    local_state,
    replay_entry,
    state_codec,
    state_key,
)
from tests.fuzz.insertable import insert
from tests.property.test_bodies import VALID
from tests.property.test_formats import FORMATS, captured
from tests.rows import messages as message_rows
from tests.unit.fakes import FakeProducer
from tests.unit.test_golden import CAPTURED, NEWEST, path_of

LAST_OFFSET = (1 << OFFSET_BITS) - 1
BODY = msgspec.json.encode(VALID)
MAX_HEADERS_BYTES = 4096


NEIGHBOUR = bytes(15) + b"\1"
"""The chatbot of good captures."""


def captures(data: bytes) -> None:
    """As the conversations worker does."""
    record = decode_captures(data)
    found: list[Captured | None] = []
    for frame in record.captures:
        try:
            found.append(decode_captured(frame))
        except UndecodableError:
            found.append(None)
    _apply(found, record.generation)


def frame(data: bytes) -> None:
    """As the conversations worker does, between two good neighbours in one record."""
    found = decode_captured(data)
    applied = _apply([_neighbour(1), found, _neighbour(2)], MAX_GENERATION)
    assert [applied.results[at].stored for at in (0, 2)] == [2, 2]
    rows = RowBatch()
    rows.add(messages_codec.encode(applied.messages), 0, 0)
    assert sum(row["chatbot_id"] == NEIGHBOUR for row in message_rows(rows)) == 4


def replies(data: bytes) -> None:
    """As a gateway does, while captures wait for the reply."""
    reply = replies_codec.decode(data)

    async def receive() -> None:
        waiting = Replies(1, 1, Pace(0, 0))
        expected = waiting.expect(
            reply.partition, reply.offset, asyncio.get_running_loop().create_future()
        )
        waiting.receive(reply)
        waiting.receive(reply)
        results = await expected.soon
        for result in filter(None, (result_at(results, at) for at in range(3))):
            warnings = [LEFT_OUT.format(name) for name in result.left_out]
            answer = CaptureAnswer(True, "", result.stored or 0, bool(result.stored), warnings)
            assert msgspec.json.decode(msgspec.json.encode(answer), type=CaptureAnswer) == answer

    asyncio.run(receive())


def messages(data: bytes) -> None:
    """As the ClickHouse worker does."""
    rows = RowBatch()
    rejected = rows.add(data, 0, 0)
    insert(rows)
    assert len({letter.key for letter, _ in rejected}) == len(rejected), "a letter hides another"
    for letter, value in rejected:
        dead_letter(letter, value)
        assert RowBatch().add(value, 0, 0), "what was rejected must be so when it is replayed"


def analysis(data: bytes) -> None:
    """As an analysis worker will do."""
    for item in analysis_codec.decode(data):
        decode_new_messages(item.messages)


def chatbots(data: bytes) -> None:
    """As a gateway does: an entry under its own id, then a capture with its settings in force."""
    try:
        key = UUID(chatbot_codec.decode(data).id).bytes
    except (UndecodableError, ValueError):
        key = data[:16]
    registry = Registry()
    registry.apply(key, data)
    (chatbot,) = registry.chatbots()
    assert registry.chatbot_of(chatbot.key_sha256) is chatbot
    with suppress(RefusedError):
        asyncio.run(RateLimits("async+memory://", OFF).take(chatbot))
    found, warnings = captured_of(decode_capture(BODY), chatbot, 1, None)
    assert decode_captured(encode(found)) == found
    assert msgspec.json.encode((chatbot, list(warnings.values())))


def generation(data: bytes) -> None:
    """As a gateway does, which stamps it into its records."""
    registry = Registry()
    registry.apply(GENERATION_KEY, data)
    record = CapturesRecord(registry.generation, 0, [])
    assert decode_captures(captures_codec.encode(record)) == record


def changelog(data: bytes) -> None:
    """As recovery does; then a capture over what it left. The first byte is the key's length."""
    end = 1 + (data[0] if data else 0)
    key, value = data[1:end], data[end:]
    for newest in (0, 2**63):
        before = {state_key(key[1:17]): local_state(newest, b"")}
        entries = replay_entry(key, value or None, before.get)
        if _is_at_the_bound(entries.get(state_key(key[1:17]))):
            continue
        assert all(entry is not None or key[:1] == STATE for entry in entries.values())
        known = {found: entry for found, entry in entries.items() if entry is not None}
        conversation = _neighbour(1)
        conversation.conversation_id = key[1:17]
        _apply([conversation], MAX_GENERATION, known)


def _is_at_the_bound(entry: bytes | None) -> bool:
    """Whether a capture of two more messages makes counts that the next recovery refuses."""
    if entry is None:
        return False
    state = state_codec.decode(entry[8:])
    return max(state.revision + 1, state.message_count + 2) > MOST_REPLAYED


def dead_letters(data: bytes) -> None:
    """As both workers do with what they can't read, whatever the reason says."""
    source = Source(topics.MESSAGES, 0, 0, 0)
    for reason in (data.decode("latin-1"), data.decode(errors="surrogateescape")):
        for error in (UndecodableError(reason), ValueError(reason)):
            dead_letter(DeadLetter("undecodable_output", detail_of(error), source), data)


def dead_letter(letter: DeadLetter, value: bytes) -> None:
    """Check that a dead letter can be sent, is within its topic's limits, and is read again."""
    producer = FakeProducer()

    async def send() -> None:
        await DeadLetters(producer, lambda _: None).send(letter, value)

    asyncio.run(send())
    (sent,) = producer.all_sent()
    headers = [(name, text.encode()) for name, text in sent.headers.items()]
    assert sum(len(text) for _, text in headers) < MAX_HEADERS_BYTES
    assert DeadLetter.from_headers(headers) == letter


def _nothing(_key: bytes) -> None:
    return None


def _neighbour(number: int) -> Captured:
    """Return a good capture of two messages, of a conversation of its own."""
    sent = [CapturedMessage(f"m{at}", "user", "hi", 1, True) for at in range(2)]
    conversation_id = b"a neighbour's  " + bytes([number])
    return Captured(NEIGHBOUR, conversation_id, f"n{number}", 1, True, sent, {})


def _apply(
    found: Sequence[Captured | None],
    generation: int,
    known: Mapping[bytes, bytes] = MappingProxyType({}),
) -> Applied:
    """Apply a record, and follow all that it leads to; nothing of it may be undecodable."""
    try:
        return _follow(found, generation, known)
    except UndecodableError as error:
        raise AssertionError(f"what was taken can't be read later on: {error}") from error


def _follow(
    found: Sequence[Captured | None], generation: int, known: Mapping[bytes, bytes]
) -> Applied:
    applied = apply_record(found, generation, LAST_OFFSET, known)
    again = apply_record(found, generation, LAST_OFFSET, {**known, **applied.local})
    counts = [result.stored for result in applied.results]
    assert counts == [result.stored for result in again.results], "a replay counts otherwise"
    assert [count is None for count in counts] == [captured is None for captured in found]
    replies(replies_codec.encode(RepliesRecord(0, LAST_OFFSET, applied.results)))
    messages(messages_codec.encode(applied.messages))
    analysis(analysis_codec.encode(applied.analysis))
    for key, value in applied.changelog:
        entries = replay_entry(key, value, _nothing)
        if value is not None:
            assert entries.items() <= applied.local.items(), "recovery would make another table"
    return applied


class Target(NamedTuple):
    """A topic's reader, and values that it takes, encoded without their version's byte."""

    read: Callable[[bytes], None]
    values: SearchStrategy[bytes]
    version: bytes = b"\1"


def _of(name: str) -> SearchStrategy[bytes]:
    codec, values = FORMATS[name]
    kind = {"states": "changelog-state", "ids": "changelog-ids"}.get(name, name)
    written = path_of(NEWEST[kind]).read_bytes()[1:]
    return st.just(written) | values.map(lambda value: codec.encode(value)[1:])


def _chatbots() -> SearchStrategy[bytes]:
    """Return chatbots whose ids are UUIDs, as their keys have to be."""
    return st.builds(
        lambda chatbot, found: chatbot_codec.encode(replace(chatbot, id=str(found)))[1:],
        FORMATS["chatbots"].values,
        st.uuids(),
    )


def _entries() -> SearchStrategy[bytes]:
    """Return changelog entries: the key's length, the key, the value."""
    states = FORMATS["states"].values.map(
        lambda state: (
            changelog_state_key(state.conversation_id, state.revision) + state_codec.encode(state)
        )
    )
    ids = st.builds(
        lambda conversation, capture, ids: (
            changelog_ids_key(conversation, capture << MESSAGE_BITS) + introduced_codec.encode(ids)
        ),
        st.binary(min_size=16, max_size=16),
        st.integers(0, 2**57 - 1),
        FORMATS["ids"].values,
    )
    return (states | ids).map(lambda entry: b"\x19" + entry)


TARGETS = {
    "captures": Target(captures, _of("captures")),
    "frame": Target(frame, st.just(encode(CAPTURED)) | captured.map(encode), version=b""),
    "replies": Target(replies, _of("replies")),
    "messages": Target(messages, _of("messages")),
    "analysis": Target(analysis, _of("analysis")),
    "chatbots": Target(chatbots, _of("chatbots") | _chatbots()),
    "generation": Target(generation, _of("generation")),
    "changelog": Target(changelog, _entries(), version=b""),
    "dead-letters": Target(dead_letters, _of("captures")),
}
