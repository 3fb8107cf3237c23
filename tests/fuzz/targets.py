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

from analysis.llm import Spending
from analysis.offline import OfflineAnalyzer
from analysis.protocol import Finding
from gateway.capture import LEFT_OUT
from gateway.decode import captured_of, decode_capture
from gateway.errors import RefusedError
from gateway.limits import OFF, RateLimits
from gateway.metrics import GatewayMetrics
from gateway.pace import Pace
from gateway.registry import Registry
from gateway.replies import Replies, result_at
from openbat.spending import key_of, tally_codec
from schemas import topics
from schemas.analyses import Analysed, analyses_codec
from schemas.capture import CaptureAnswer
from schemas.chatbots import GENERATION_KEY, ChatbotSettings, chatbot_codec
from schemas.codec import UndecodableError
from schemas.dead_letters import DeadLetter, Source, detail_of
from schemas.positions import MAX_GENERATION, MESSAGE_BITS, OFFSET_BITS
from schemas.records import (
    AnalysisItem,
    Captured,
    CapturedMessage,
    CapturesRecord,
    NewMessage,
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
from sinks.analysis_rows import AnalysisBatch
from sinks.rows import RowBatch
from streams import asking, context
from streams.analysis import found_codec
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
NOW = 1_735_689_600_000_000
QUIET = context.Quiet(600_000_000, 2_592_000_000_000)
OFFLINE = OfflineAnalyzer()


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
        waiting = Replies(1, 1, Pace(0, 0), GatewayMetrics())
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
    """As an analysis worker does, with findings of every kind that it asks about."""
    for item in analysis_codec.decode(data):
        source = Source(topics.ANALYSIS, 0, LAST_OFFSET, 0)
        try:
            new = decode_new_messages(item.messages)
        except UndecodableError as error:
            alone = analysis_codec.encode([item])
            dead_letter(DeadLetter("undecodable_output", detail_of(error), source), alone)
            continue
        try:
            _analyse(item, new, source)
        except UndecodableError as error:
            raise AssertionError(f"what was taken can't be read later on: {error}") from error


def _analyse(item: AnalysisItem, new: list[NewMessage], source: Source) -> None:
    taken = context.take_in(None, item, new, source.offset, source.index, QUIET)
    for key, value in context.changes(None, taken.context).changelog:
        context.replay_entry(key, value, _nothing)
    settings = ChatbotSettings()
    questions = (
        asking.of_messages(item, new, taken.before, settings, source)
        if new
        else asking.of_conversation(item, settings, source)
    )
    for question in questions:
        findings = tuple(Finding(kind) for kind in question.subject.kinds)
        said = [question.analysis(OFFLINE, findings, NOW)]
        analyses(analyses_codec.encode([Analysed(item.chatbot_id, item.conversation_id, said)]))
        (alone,) = analysis_codec.decode(analysis_codec.encode([question.alone(OFFLINE)]))
        again = decode_new_messages(alone.messages)
        assert again == ([question.message] if question.message else [])
        assert alone.said == list(question.said)


def analyses(data: bytes) -> None:
    """As the ClickHouse worker does."""
    batch = AnalysisBatch()
    assert batch.add(data, 0, 0) == []
    insert(batch)
    for index in range(batch.rows):
        letter, value = batch.analyses.rejected(index, ValueError("never"))
        dead_letter(letter, value)
        again = AnalysisBatch()
        again.add(value, 0, 0)
        assert again.analyses.encoded == [batch.analyses.encoded[index]]


def spending(data: bytes) -> None:
    """As an analysis worker does with what another one has spent."""
    tally = tally_codec.decode(data)
    spent = Spending(f"not {tally.worker}")
    for _ in range(2):
        spent.learn(tally)
    assert spent.total(tally.chatbot_id, tally.day) == tally.usage
    assert key_of(tally)


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


def contexts(data: bytes) -> None:
    """As an analysis worker's recovery does; then a message over what it left.

    The first byte is the key's length.
    """
    end = 1 + (data[0] if data else 0)
    key, value = data[1:end], data[end:]
    conversation_id = key[1:17]
    for position in (0, 2**63):
        held = _said_in(None, conversation_id, position)
        table = _over(held, context.replay_entry(key, value or None, held.get))
        if key[:1] == context.FOUND:
            assert table == _over(held, {key: value or None})
            found_codec.decode(value)
        for later in (0, 2**64 - 1):
            _said_in(table, conversation_id, later)


def _said_in(
    table: Mapping[bytes, bytes] | None, conversation_id: bytes, position: int
) -> dict[bytes, bytes]:
    """Return a conversation's table after another message; recovery has to make the same one."""
    table = table or {}
    before = context.decode_context(table.get(context.context_key(conversation_id)))
    _assert_one_is_due(table, before)
    new = [NewMessage("m", "user", "hi", NOW, NOW, position)]
    item = AnalysisItem(NEIGHBOUR, conversation_id, msgspec.Raw(encode(new)), NOW)
    after = context.take_in(before, item, new, LAST_OFFSET, 0, QUIET).context
    if after is before:
        return {**table}
    made = context.changes(before, after)
    recovered = {**table}
    for key, value in made.changelog:
        recovered = _over(recovered, context.replay_entry(key, value, recovered.get))
    assert recovered == _over(table, made.local), "recovery would make another table"
    _assert_one_is_due(recovered, after)
    return recovered


def _assert_one_is_due(table: Mapping[bytes, bytes], known: context.Context | None) -> None:
    due = [key for key in table if key[:1] == context.DUE]
    assert due == ([context.due_key(known)] if known else [])


def _over(
    table: Mapping[bytes, bytes], entries: Mapping[bytes, bytes | None]
) -> dict[bytes, bytes]:
    merged = {**table, **entries}
    return {key: entry for key, entry in merged.items() if entry is not None}


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


def _context_entries() -> SearchStrategy[bytes]:
    """Return changelog entries of contexts: the key's length, the key, the value."""
    kept = FORMATS["contexts"].values.map(
        lambda found: next(iter(context.changes(None, found).changelog))
    )
    found = st.builds(
        lambda conversation_id, position, findings: (
            context.found_key(conversation_id, position, "offline", "1", whole=False),
            found_codec.encode(findings),
        ),
        st.binary(min_size=16, max_size=16),
        st.integers(0, 2**64 - 1),
        FORMATS["found"].values,
    )
    return (kept | found).map(lambda entry: bytes([len(entry[0])]) + entry[0] + (entry[1] or b""))


TARGETS = {
    "captures": Target(captures, _of("captures")),
    "frame": Target(frame, st.just(encode(CAPTURED)) | captured.map(encode), version=b""),
    "replies": Target(replies, _of("replies")),
    "messages": Target(messages, _of("messages")),
    "analysis": Target(analysis, _of("analysis")),
    "analyses": Target(analyses, _of("analyses")),
    "contexts": Target(contexts, _context_entries(), version=b""),
    "spending": Target(spending, _of("spending")),
    "chatbots": Target(chatbots, _of("chatbots") | _chatbots()),
    "generation": Target(generation, _of("generation")),
    "changelog": Target(changelog, _entries(), version=b""),
    "dead-letters": Target(dead_letters, _of("captures")),
}
