"""What is stored in Kafka: decodes to what was encoded, and fails in one way only."""

from contextlib import suppress
from datetime import UTC
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from analysis.llm import Tally
from analysis.protocol import Finding
from openbat.spending import tally_codec
from schemas import analyses, chatbots, records
from schemas.analysis import KINDS
from schemas.codec import Codec, UndecodableError
from schemas.positions import (
    CAPTURE_BITS,
    MAX_CAPTURES_PER_RECORD,
    MAX_GENERATION,
    MESSAGE_BITS,
    OFFSET_BITS,
    POSITION_BYTES,
    capture_position,
)
from schemas.times import FIRST_INSTANT, LAST_INSTANT
from schemas.topics import REPLY_PARTITIONS
from sinks.rows import RowBatch
from streams import analysis, context, entries
from streams.apply import apply_record
from streams.entries import id_part
from tests.property.strategies import LONG, ROLES, json_values

numbers = st.integers(0, 2**63 - 1)
sent = st.integers(FIRST_INSTANT, LAST_INSTANT)
received = st.integers(0, LAST_INSTANT)
counts = st.integers(0, 2**61)
days = st.integers(0, chatbots.MAX_REMEMBER_DAYS)
positions = st.integers(0, 2**64 - 1)
texts = st.text(max_size=10)
uuids = st.binary(min_size=16, max_size=16)
roles = st.sampled_from(ROLES)
fields = st.dictionaries(
    st.sampled_from(sorted(records.GROUPS)),
    st.dictionaries(texts, json_values, max_size=3),
    max_size=3,
)
results = st.builds(
    records.CaptureResult, st.none() | st.integers(0, 100), st.lists(texts, max_size=3)
)
new_messages = st.builds(records.NewMessage, texts, roles, texts, sent, received, positions)
states = st.builds(
    records.ConversationState,
    uuids, uuids, texts, counts, positions, counts, sent, sent, received, received, fields,
    days, positions,
)  # fmt: skip
captured = st.builds(
    records.Captured,
    uuids, uuids, texts, received, st.booleans(),
    st.lists(
        st.builds(records.CapturedMessage, texts, roles, texts, sent, st.booleans()),
        max_size=3,
    ),
    fields, days,
)  # fmt: skip
raw = st.builds(
    lambda value: msgspec.Raw(records.encode(value)), st.lists(new_messages, max_size=3) | states
)
names = st.text(min_size=1, max_size=10)
words = st.lists(names, max_size=3).map(tuple)
said = st.lists(st.builds(records.Said, texts, roles, texts, sent, positions), max_size=3)
kinds = st.sampled_from(KINDS)
scores = st.none() | st.floats(-1, 1)
findings = st.lists(st.builds(Finding, kinds, texts, words, scores, texts), max_size=3).map(tuple)
analysis_results = st.builds(
    analyses.Analysis,
    texts, names, names, received, positions, counts, received, findings, counts,
)  # fmt: skip
contexts = st.builds(
    context.Context,
    uuids, uuids, counts, positions, received, st.booleans(), positions, positions, positions, said,
)  # fmt: skip


class Format(NamedTuple):
    """A codec, and values that it takes."""

    codec: Codec[Any]
    values: SearchStrategy[Any]


FORMATS = {
    "captures": Format(
        records.captures_codec,
        st.builds(
            records.CapturesRecord,
            st.integers(0, MAX_GENERATION),
            st.integers(0, REPLY_PARTITIONS - 1),
            st.lists(st.builds(records.encode, captured), max_size=3),
        ),
    ),
    "replies": Format(
        records.replies_codec,
        st.builds(records.RepliesRecord, numbers, numbers, st.lists(results, max_size=3)),
    ),
    "messages": Format(
        records.messages_codec, st.lists(st.builds(records.Change, uuids, raw, raw), max_size=3)
    ),
    "analysis": Format(
        records.analysis_codec,
        st.lists(
            st.builds(
                records.AnalysisItem,
                uuids, uuids, raw, counts, st.none() | said, st.lists(names, max_size=2), counts,
            ),
            max_size=3,
        ),
    ),
    "analyses": Format(
        analyses.analyses_codec,
        st.lists(
            st.builds(analyses.Analysed, uuids, uuids, st.lists(analysis_results, max_size=3)),
            max_size=3,
        ),
    ),
    "chatbots": Format(
        chatbots.chatbot_codec,
        st.builds(
            chatbots.Chatbot,
            texts, texts, st.binary(max_size=32), texts,
            st.datetimes(timezones=st.just(UTC)),
            st.sampled_from(["active", "archived"]),
            st.dictionaries(texts, st.sampled_from(["string", "number", "boolean"]), max_size=3),
            st.builds(
                chatbots.ChatbotSettings,
                st.none() | texts, st.booleans(), days,
                st.lists(kinds | texts, max_size=3).map(tuple),
                words, words,
                st.none() | numbers, st.none() | st.floats(0, 1e15),
            ),
            st.none() | st.datetimes(timezones=st.just(UTC)),
        ),
    ),
    "generation": Format(
        chatbots.generation_codec, st.builds(chatbots.Generation, st.integers(0, MAX_GENERATION))
    ),
    "states": Format(entries.state_codec, states),
    "ids": Format(
        entries.introduced_codec,
        st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=32)), max_size=3),
    ),
    "contexts": Format(context.context_codec, contexts),
    "found": Format(analysis.found_codec, findings),
    "spending": Format(
        tally_codec, st.builds(Tally, texts, uuids, st.integers(0, 2**40), counts, counts)
    ),
}  # fmt: skip

every_format = pytest.mark.parametrize("name", FORMATS)


@every_format
@given(st.data())
def test_what_is_encoded_decodes_to_the_same(name: str, data: DataObject) -> None:
    codec, values = FORMATS[name]
    value = data.draw(values)
    assert codec.decode(codec.encode(value)) == value


@every_format
@given(st.data())
def test_a_truncated_record_is_undecodable(name: str, data: DataObject) -> None:
    codec, values = FORMATS[name]
    encoded = codec.encode(data.draw(values))
    length = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(UndecodableError):
        codec.decode(encoded[:length])


@every_format
@given(st.data())
def test_a_record_of_an_unknown_version_is_undecodable(name: str, data: DataObject) -> None:
    codec, values = FORMATS[name]
    encoded = codec.encode(data.draw(values))
    version = data.draw(st.integers(0, 255).filter(lambda number: number != encoded[0]))
    with pytest.raises(UndecodableError, match="version"):
        codec.decode(bytes([version]) + encoded[1:])


@every_format
@given(st.data())
def test_damaged_bytes_are_undecodable_or_decode_and_nothing_else(
    name: str, data: DataObject
) -> None:
    codec, values = FORMATS[name]
    encoded = bytearray(codec.encode(data.draw(values)))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(UndecodableError):
        codec.decode(bytes(encoded))


@every_format
@given(st.binary(max_size=60), st.booleans())
def test_random_bytes_are_undecodable_or_decode_and_nothing_else(
    name: str, payload: bytes, known_version: bool
) -> None:
    codec = FORMATS[name].codec
    with suppress(UndecodableError):
        codec.decode(b"\x01" + payload if known_version else payload)


@given(captured)
def test_a_frame_decodes_to_the_same(value: records.Captured) -> None:
    assert records.decode_captured(records.encode(value)) == value


anything: SearchStrategy[Any] = st.recursive(
    st.none() | st.binary(max_size=3) | st.floats() | st.datetimes() | st.integers(-3, 3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.none() | st.integers(0, 3) | st.binary(max_size=1), inner, max_size=2)
    ),
    max_leaves=5,
)
foreign = st.tuples(
    st.binary(min_size=15, max_size=17),
    st.binary(min_size=15, max_size=17),
    texts,
    st.integers(-1, LAST_INSTANT + 1),
    st.booleans(),
    st.lists(
        st.tuples(
            texts, roles, texts, st.integers(FIRST_INSTANT - 1, LAST_INSTANT + 1), st.booleans()
        ),
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(["user", "custom", ""]),
        st.dictionaries(st.sampled_from(["createdAt", "mrr", ""]), anything, max_size=2),
        max_size=2,
    ),
)


@given(foreign)
def test_a_foreign_frame_that_decodes_ends_no_worker(frame: tuple[Any, ...]) -> None:
    try:
        decoded = records.decode_captured(msgspec.msgpack.encode(frame))
    except UndecodableError:
        return
    applied = apply_record([decoded], MAX_GENERATION, (1 << OFFSET_BITS) - 1, {})
    with suppress(UndecodableError):
        RowBatch().add(records.messages_codec.encode(applied.messages), 0, 0)


places = st.tuples(
    st.integers(0, MAX_GENERATION),
    st.integers(0, (1 << OFFSET_BITS) - 1),
    st.integers(0, MAX_CAPTURES_PER_RECORD - 1),
    st.integers(0, (1 << MESSAGE_BITS) - 1),
)
Place = tuple[int, int, int, int]


def position_of(place: Place) -> int:
    *capture, message = place
    return capture_position(*capture) + message


@given(places, places)
def test_positions_are_ordered_as_the_log_is(one: Place, other: Place) -> None:
    assert (position_of(one) < position_of(other)) == (one < other)
    assert (position_of(one) == position_of(other)) == (one == other)


def test_the_last_position_fits_into_its_bytes() -> None:
    last = position_of(
        (MAX_GENERATION, (1 << OFFSET_BITS) - 1, (1 << CAPTURE_BITS) - 1, (1 << MESSAGE_BITS) - 1)
    )
    assert last == (1 << 8 * POSITION_BYTES) - 1
    assert position_of((0, 0, 0, 0)) == 0


message_ids = st.text(min_size=1, max_size=40) | st.builds(
    "".join, st.tuples(st.sampled_from([LONG, "ü" * 16, "x" * 31, "\N{GRINNING FACE}" * 8]), texts)
)


@given(message_ids, message_ids)
def test_distinct_ids_are_remembered_as_distinct(one: str, other: str) -> None:
    assert (id_part(one) == id_part(other)) == (one == other)


@given(message_ids)
def test_what_is_remembered_of_an_id_is_short_and_stable(message_id: str) -> None:
    part = id_part(message_id)
    assert 1 <= len(part) <= 32
    assert id_part(message_id) == part
    if len(message_id.encode()) <= 32:
        assert part == message_id.encode()
    else:
        assert len(part) * 8 >= 128


def test_a_frame_that_nests_too_deeply_to_be_encoded_again_does_not_decode() -> None:
    empty = records.Captured(bytes(16), bytes(16), "c", 1, True, [], {})
    nested = b"\x91" * 995 + b"\xc0"
    fields = b"\x81\xa4user\x81\xa1x" + nested
    frame = records.encode(empty)[:-1] + fields
    with pytest.raises(UndecodableError):
        records.decode_captured(frame)
