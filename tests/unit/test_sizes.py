"""Sizes: what one limit lets through, the next one takes."""

from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from msgspec.structs import replace

from analysis.offline import OfflineAnalyzer
from analysis.protocol import Finding
from gateway.decode import captured_of, decode_capture
from schemas import sizes, topics
from schemas.analyses import Analysed, Analysis, analyses_codec
from schemas.analysis import (
    KINDS,
    MAX_LABEL_CHARACTERS,
    MAX_REASONING_CHARACTERS,
    MAX_TOPICS,
    MAX_VOCABULARY,
    MESSAGE_KINDS,
)
from schemas.capture import MAX_ID_CHARACTERS, MAX_MESSAGES
from schemas.chatbots import ChatbotSettings
from schemas.codec import UndecodableError
from schemas.dead_letters import Source
from schemas.positions import MAX_CAPTURES_PER_RECORD, MAX_GENERATION
from schemas.records import (
    AnalysisItem,
    Captured,
    CapturedMessage,
    CapturesRecord,
    Change,
    NewMessage,
    RepliesRecord,
    Said,
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
from sinks.writer import ClickHouseWriter
from streams import asking
from streams.analysis import ANALYSES_PER_PART, found_codec
from streams.apply import Applied, apply_record, batches
from streams.context import (
    SAID_MESSAGES,
    Changes,
    Context,
    Quiet,
    changes,
    remembered,
    take_in,
)
from tests.unit.test_gateway import chatbot
from tests.unit.test_sinks import VIOLATED_CONSTRAINT

KAFKA_OVERHEAD = 4 * sizes.KIB
"""A batch's header and a record's, generously."""

DEAD_LETTER_HEADERS = 64 * sizes.KIB

WIDEST = "😀"
"""A character of four bytes: what is counted in characters takes that many at most."""
LATEST = (1 << 53) - 1


def largest_frame(member: str) -> bytes:
    """Return the frame of a body of the largest size, filled with what grows most."""
    body = (
        '{"conversationId":"' + "c" * MAX_ID_CHARACTERS + '","messages":['
        + ",".join(['{"role":"assistant","content":""}'] * MAX_MESSAGES)
        + '],"' + member + '":{"x":['
    )  # fmt: skip
    end = "0]}}"
    body += "1e1," * ((sizes.LARGEST_BODY - len(body) - len(end)) // 4) + end
    captured, _ = captured_of(decode_capture(body.encode()), chatbot(), 1 << 50, None)
    return encode(captured)


def small_frame(number: int, messages: int = MAX_MESSAGES) -> bytes:
    """Return the frame of a capture whose messages take as few bytes as they can."""
    sent = [
        CapturedMessage(f"{number:x}-{index:x}", "user", "", 1 << 50, True)
        for index in range(messages)
    ]
    return encode(Captured(bytes(16), bytes(16), "c", 1 << 50, True, sent, {}))


def full_record(last: bytes) -> list[bytes]:
    """Return frames of small captures up to the limit of a record, and a last one."""
    frames: list[bytes] = []
    size = 0
    while True:
        frame = small_frame(len(frames))
        if size + len(frame) >= sizes.BATCH:
            return [*frames, last]
        frames.append(frame)
        size += len(frame)


def applied(frames: list[bytes]) -> Applied:
    captures: list[Captured | None] = [decode_captured(frame) for frame in frames]
    return apply_record(captures, MAX_GENERATION, (1 << 40) - 1, {})


def test_limits_grow_from_the_socket_to_the_dead_letters() -> None:
    assert sizes.DEFAULT_BODY <= sizes.LARGEST_BODY < sizes.CAPTURE
    assert sizes.BATCH + sizes.CAPTURE < sizes.CAPTURES_RECORD
    assert sizes.CAPTURES_RECORD <= sizes.OUTPUT_RECORD
    assert sizes.OUTPUT_RECORD + KAFKA_OVERHEAD <= sizes.TOPIC
    assert sizes.CHANGELOG_BATCH + sizes.FIELDS + KAFKA_OVERHEAD <= sizes.TOPIC
    assert sizes.TOPIC + DEAD_LETTER_HEADERS <= sizes.DEAD_LETTERS_TOPIC
    assert sizes.DEAD_LETTERS_TOPIC <= sizes.PRODUCER_REQUEST


def test_topics_take_what_the_table_of_sizes_says() -> None:
    for topic in topics.TOPICS:
        expected = sizes.TOPIC
        if topic.name == topics.DEAD_LETTERS:
            expected = sizes.DEAD_LETTERS_TOPIC
        assert topic.config["max.message.bytes"] == str(expected)


@pytest.mark.parametrize("member", ["user", "session"])
def test_the_largest_body_is_no_larger_than_a_capture_may_be(member: str) -> None:
    assert 2 * sizes.LARGEST_BODY < len(largest_frame(member)) <= sizes.CAPTURE


def test_a_record_of_captures_is_within_its_limit() -> None:
    largest = bytes(sizes.CAPTURE)
    for frames in (
        full_record(largest),
        [small_frame(number, 1) for number in range(MAX_CAPTURES_PER_RECORD - 1)] + [largest],
    ):
        record = CapturesRecord(MAX_GENERATION, topics.REPLY_PARTITIONS - 1, frames)
        assert len(captures_codec.encode(record)) <= sizes.CAPTURES_RECORD


def test_what_one_record_makes_of_one_conversation_is_within_the_limit_of_an_output() -> None:
    content = "x" * (sizes.CAPTURE - sizes.FIELDS - 5 * sizes.KIB)
    messages = [CapturedMessage(f"last-{at}", "user", "", 1, True) for at in range(99)]
    messages.append(CapturedMessage("last", "assistant", content, 1, True))
    fields = {"custom": {"a": "x" * (sizes.FIELDS - 100)}}
    last = encode(Captured(bytes(16), bytes(16), "c" * 255, 1 << 50, True, messages, fields))
    assert sizes.CAPTURE - 5 * sizes.KIB < len(last) <= sizes.CAPTURE
    done = applied(full_record(last))
    (change,), (item,) = done.messages, done.analysis
    assert len(messages_codec.encode([change])) <= sizes.OUTPUT_RECORD
    assert len(analysis_codec.encode([item])) <= sizes.OUTPUT_RECORD
    assert all(value is None or len(value) < sizes.CHANGELOG_BATCH for _, value in done.changelog)


def said_before() -> list[Said]:
    """Return as much as is remembered of a conversation."""
    name, content = WIDEST * MAX_ID_CHARACTERS, WIDEST * 10_000
    long = NewMessage(name, "assistant", content, LATEST, LATEST, (1 << 64) - 1)
    return [remembered(long)] * SAID_MESSAGES


def largest_item() -> AnalysisItem:
    """Return what one record of captures makes of one conversation, at most."""
    content = "x" * (sizes.CAPTURE - sizes.FIELDS - 5 * sizes.KIB)
    sent = [CapturedMessage(f"last-{at}", "user", "", 1, True) for at in range(99)]
    sent.append(CapturedMessage("last", "assistant", content, 1, True))
    last = encode(Captured(bytes(16), bytes(16), "c" * 255, 1 << 50, True, sent, {}))
    (item,) = applied(full_record(last)).analysis
    return item


def test_what_is_put_off_is_within_the_limits_with_what_was_said_before() -> None:
    item = replace(largest_item(), said=said_before())
    put_off = [item] * 2
    for batch in batches(put_off, lambda each: len(encode(each))):
        assert len(analysis_codec.encode(batch)) + KAFKA_OVERHEAD <= sizes.TOPIC


def test_a_letter_of_what_an_analyzer_can_not_judge_is_within_the_limit() -> None:
    item = replace(largest_item(), said=said_before())
    new = decode_new_messages(item.messages)
    before = take_in(None, item, new, 0, 0, Quiet(1, 2)).before
    source = Source(topics.ANALYSIS, 0, 0, 0)
    questions = list(asking.of_messages(item, new, before, ChatbotSettings(), source))
    assert len(questions) == len(new)
    letters = [
        analysis_codec.encode([question.alone(OfflineAnalyzer())]) for question in questions[-2:]
    ]
    assert max(map(len, letters)) > sizes.CAPTURE - sizes.FIELDS - 5 * sizes.KIB
    for letter in letters:
        assert len(letter) + DEAD_LETTER_HEADERS <= sizes.DEAD_LETTERS_TOPIC


def test_the_longest_results_of_one_conversation_are_within_the_limit() -> None:
    """Splitting by their number must do, whatever a chatbot's vocabulary is."""
    label = WIDEST * MAX_LABEL_CHARACTERS
    reasoning = WIDEST * MAX_REASONING_CHARACTERS
    findings = (
        Finding("sentiment", label, score=0.1, reasoning=reasoning),
        Finding("intent", label, reasoning=reasoning),
        Finding("topics", labels=(label,) * MAX_TOPICS, reasoning=reasoning),
        Finding("flags", labels=(label,) * MAX_VOCABULARY, reasoning=reasoning),
    )
    result = Analysis(
        WIDEST * MAX_ID_CHARACTERS, label, label, LATEST, (1 << 64) - 1, 0, LATEST, findings,
        LATEST,
    )  # fmt: skip
    assert {each.kind for each in findings} == MESSAGE_KINDS["user"]
    part = Analysed(bytes(16), bytes(16), [result] * ANALYSES_PER_PART)
    for batch in batches([part] * 2, lambda each: len(encode(each))):
        record = analyses_codec.encode(batch)
        assert len(record) + KAFKA_OVERHEAD <= sizes.TOPIC
        assert len(record) + DEAD_LETTER_HEADERS <= sizes.DEAD_LETTERS_TOPIC


def test_what_an_analysis_worker_keeps_is_within_a_batch_of_its_changelog() -> None:
    known = Context(
        bytes(16), bytes(16), LATEST, (1 << 64) - 1, LATEST, True, LATEST, LATEST, LATEST,
        said_before(),
    )  # fmt: skip
    written: Changes = changes(None, known)
    label = WIDEST * MAX_LABEL_CHARACTERS
    reasoning = WIDEST * MAX_REASONING_CHARACTERS
    found = tuple(Finding(kind, label, (label,) * MAX_VOCABULARY, 0.5, reasoning) for kind in KINDS)
    for entry in (*(value for _, value in written.changelog), found_codec.encode(found)):
        assert entry is not None
        assert len(entry) + KAFKA_OVERHEAD < sizes.CHANGELOG_BATCH


def test_what_a_foreign_record_makes_of_one_conversation_is_split() -> None:
    frames = [small_frame(number) for number in range(MAX_CAPTURES_PER_RECORD // 2)]
    done = applied(frames)
    assert sum(len(change.messages) for change in done.messages) > sizes.OUTPUT_RECORD
    for batch in batches(done.messages, lambda change: len(change.state) + len(change.messages)):
        assert len(messages_codec.encode(batch)) <= sizes.OUTPUT_RECORD
    for of_items in batches(done.analysis, lambda item: len(item.messages)):
        assert len(analysis_codec.encode(of_items)) <= sizes.OUTPUT_RECORD
    found = [decode_new_messages(change.messages) for change in done.messages]
    assert sum(map(len, found)) == len(frames) * MAX_MESSAGES
    assert len(found) > 1
    assert {bytes(change.state) for change in done.messages} == {bytes(done.messages[0].state)}


def test_what_no_gateway_sends_is_undecodable_for_its_size() -> None:
    with pytest.raises(UndecodableError, match="bytes"):
        decode_captured(bytes(sizes.CAPTURE + 1))
    with pytest.raises(UndecodableError, match="bytes"):
        decode_captures(bytes(sizes.CAPTURES_RECORD + 1))


def test_outputs_of_many_small_conversations_are_within_the_limit_too() -> None:
    captures: list[Captured | None] = [
        Captured(
            bytes(16),
            number.to_bytes(16),
            "c",
            1,
            True,
            [CapturedMessage("m", "user", "", 1, True)],
            {},
        )
        for number in range(MAX_CAPTURES_PER_RECORD)
    ]
    done = apply_record(captures, 1, 1, {})
    changes: list[Change] = done.messages * 5
    items: list[AnalysisItem] = done.analysis * 5
    for batch in batches(changes, lambda change: len(change.state) + len(change.messages)):
        assert len(messages_codec.encode(batch)) <= sizes.OUTPUT_RECORD
    for of_items in batches(items, lambda item: len(item.messages)):
        assert len(analysis_codec.encode(of_items)) <= sizes.OUTPUT_RECORD


def test_a_reply_that_names_every_field_of_the_largest_body_fits_into_its_topic() -> None:
    count = sizes.LARGEST_BODY // len('"abc":1,')
    done = applied(full_record(small_frame(0)))
    done.results[-1].left_out = ["organization.abc"] * count
    reply = replies_codec.encode(RepliesRecord(1, 1 << 40, done.results))
    assert len(reply) + KAFKA_OVERHEAD <= sizes.TOPIC


async def test_a_rejected_row_is_within_the_limit_of_dead_letters() -> None:
    class Refusing:
        def create_insert_context(self, *_args: Any) -> None: ...

        def raw_insert(self, *_args: Any) -> None:
            raise DatabaseError("no", code=VIOLATED_CONSTRAINT)

    content = "\1" * (sizes.LARGEST_BODY // len("\\u0001"))
    sent = [CapturedMessage("m", "user", content, 1, True)]
    fields = {"custom": {"a": "\1" * (sizes.FIELDS - 100)}}
    frame = encode(Captured(bytes(16), bytes(16), "c", 1, True, sent, fields))
    writer = ClickHouseWriter(Refusing())
    batch = RowBatch()
    batch.add(messages_codec.encode(applied([frame]).messages), 0, 0)
    rejected = await writer.write(batch)
    assert len(rejected) == 2
    for row in rejected:
        assert len(row.value) + DEAD_LETTER_HEADERS <= sizes.DEAD_LETTERS_TOPIC
