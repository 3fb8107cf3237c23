"""Dead letters: their headers, which are listed, what a replay sends, how they are shown."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from openbat import cli
from openbat.command import UnansweredError
from openbat.connection import Connection
from openbat.dead_letters import cli as commands
from openbat.dead_letters import kafka, reading
from openbat.dead_letters import shown as shown_module
from openbat.dead_letters.listed import (
    DeadLettersError,
    Filters,
    Letters,
    Listed,
    counts,
    moment,
    named,
)
from openbat.dead_letters.replay import RefusedError, replay_of
from openbat.dead_letters.shown import shown
from openbat.health import serve
from openbat.metrics import Metrics
from openbat.settings import SettingsError
from schemas import topics
from schemas.codec import UndecodableError
from schemas.dead_letters import REASONS, WHOLE_RECORD, DeadLetter, Reason, Source, detail_of
from schemas.records import (
    Captured,
    CapturedMessage,
    CapturesRecord,
    Change,
    captures_codec,
    decode_captured,
    encode,
    messages_codec,
)
from streams.apply import apply_record
from tests.stack import free_port
from tests.unit.test_golden import CAPTURED, FORGETFUL, NEW, NEWEST, STATE, path_of

NOW = datetime(2025, 1, 31, 12, tzinfo=UTC)
FRAME = encode(CAPTURED)
RECORD = captures_codec.encode(CapturesRecord(3, 1, [b"\xc1"]))
numbers = st.integers(0, 2**63 - 1)
sources = st.builds(Source, st.text(), numbers, numbers, st.integers(-1, 2**31))


def letter(
    reason: Reason = "undecodable_capture", topic: str = topics.CAPTURES, index: int = 0
) -> DeadLetter:
    return DeadLetter(reason, "because", Source(topic, 3, 1042, index))


class Record(NamedTuple):
    """The part of a consumer's record that is used."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int = 3
    timestamp: int = int(NOW.timestamp() * 1000)


def sent(offset: int, of: DeadLetter, value: bytes = b"value") -> Record:
    return Record(offset, of.key, value, of.headers())


def listed(*records: Record) -> list[Listed]:
    letters = Letters()
    for record in records:
        letters.apply(record)
    return letters.all()


@given(st.builds(DeadLetter, st.sampled_from(REASONS[:-1]), st.text(), sources))
def test_a_letter_is_what_its_headers_say(made: DeadLetter) -> None:
    assert DeadLetter.from_headers(made.headers()) == made


@given(st.text().filter(lambda text: text not in REASONS), sources)
def test_a_reason_of_another_release_is_shown_as_it_is(text: str, source: Source) -> None:
    made = DeadLetter("undecodable_record", "", source)
    headers = [("reason", text.encode()), *made.headers()[2:]]
    assert DeadLetter.from_headers(headers) == DeadLetter("other", text, source)


@given(st.lists(st.tuples(st.text(), st.binary())))
def test_headers_without_a_source_are_refused(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(UndecodableError):
        DeadLetter.from_headers(headers)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (UndecodableError("format version 09 is not known"), "format version 09 is not known"),
        (
            UndecodableError("Invalid enum value 'it's secret' - at `$[5][0][1]`"),
            "Invalid enum value ... - at `$[5][0][1]`",
        ),
        (
            UndecodableError("Invalid enum value 'secret - at `$[0]`' - at `$[...][1]`"),
            "Invalid enum value ... - at `$[...][1]`",
        ),
        (
            UndecodableError("Expected `int`, got `str` - at `$[0]`"),
            "Expected `int`, got `str` - at `$[0]`",
        ),
        (ValueError('Invalid string: "it\'s secret"'), "ValueError: Invalid string: ..."),
        (ValueError("can't read 'secret\nsecret"), "ValueError: can't read ..."),
        (TypeError(), "TypeError: "),
        (None, "NoneType: None"),
    ],
)  # fmt: skip
def test_a_detail_quotes_nothing(error: Exception | None, detail: str) -> None:
    assert detail_of(error) == detail


@given(st.text())
def test_a_detail_never_holds_what_was_quoted(secret: str) -> None:
    unquoted = detail_of(ValueError(f"bad value: '{secret} abracadabra"))
    assert unquoted == "ValueError: bad value: ..."


def test_a_detail_is_bounded_and_keeps_the_path() -> None:
    text = detail_of(UndecodableError("x" * 1000 + " 'secret' - at `$[1]`"))
    assert len(text) == 300
    assert text.endswith(" - at `$[1]`")


def test_a_letter_that_is_sent_again_is_listed_once_and_a_tombstone_drops_it() -> None:
    first, second = letter(), letter(index=1)
    found = listed(sent(0, first), sent(1, second), sent(2, first, b"again"))
    assert [(each.id, each.offset) for each in found] == [
        ("captures/3/1042/0", 2),
        ("captures/3/1042/1", 1),
    ]
    gone = Record(3, first.key, None, [])
    assert [each.letter for each in listed(sent(0, first), sent(1, second), gone)] == [second]
    # One that comes after the tombstone is there again.
    assert [each.offset for each in listed(sent(0, first), gone, sent(4, first))] == [4]


def test_letters_without_a_key_are_told_apart_and_can_be_dropped() -> None:
    headers = [("reason", b"too odd"), *letter().headers()[2:]]
    earlier = [Record(offset, None, b"value", headers) for offset in (7, 8)]
    found = listed(*earlier)
    assert [each.id for each in found] == ["captures/3/1042/0@7", "captures/3/1042/0@8"]
    assert found[0].letter.reason == "other"
    assert found[0].letter.detail == "too odd"
    assert [each.offset for each in listed(*earlier, Record(9, found[0].key, None, []))] == [8]


def test_what_is_no_letter_is_listed_too() -> None:
    (found,) = listed(Record(5, None, b"value", []))
    assert found.letter.source == Source(topics.DEAD_LETTERS, 3, 5, WHOLE_RECORD)
    assert found.letter.reason == "other"


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        (Filters(), True),
        (Filters(reason="undecodable_capture"), True),
        (Filters(reason="rejected_row"), False),
        (Filters(topic="captures"), True),
        (Filters(topic="messages"), False),
        (Filters(partition=3), True),
        (Filters(partition=0), False),
        (Filters(since=NOW, until=NOW), True),
        (Filters(since=NOW + timedelta(seconds=1)), False),
        (Filters(until=NOW - timedelta(seconds=1)), False),
        (Filters(reason="undecodable_capture", topic="captures", partition=1), False),
    ],
)
def test_filters_are_all_to_be_met(filters: Filters, matches: bool) -> None:
    (found,) = listed(sent(0, letter()))
    assert filters.match(found) is matches


def test_letters_are_counted_by_reason_and_found_by_id() -> None:
    found = listed(
        sent(0, letter()), sent(1, letter("rejected_row", index=1)), sent(2, letter(index=2))
    )
    assert counts(found) == {"undecodable_capture": 2, "rejected_row": 1}
    wanted = "captures/3/1042/1"
    assert [each.id for each in named(found, [wanted, wanted])] == [wanted]
    with pytest.raises(DeadLettersError, match="captures/3/1042/9"):
        named(found, [wanted, "captures/3/1042/9"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("5m", NOW - timedelta(minutes=5)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2025-01-30", datetime(2025, 1, 30, tzinfo=UTC)),
        ("2025-01-30T01:00Z", datetime(2025, 1, 30, 1, tzinfo=UTC)),
        ("2025-01-30T01:00+01:00", datetime(2025, 1, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_an_age_or_a_time(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "2w", "yesterday", "999999d", "2025-13-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(DeadLettersError, match="expected an age"):
        moment(text, NOW)


def test_a_replayed_capture_is_stored_once_however_often() -> None:
    known: dict[bytes, bytes] = {}
    stored = []
    for offset in (5, 6, 9):
        record = captures_codec.decode(replay_of(letter(), FRAME, generation=3).value)
        assert record.generation == 3
        captures = [decode_captured(frame) for frame in record.captures]
        applied = apply_record(captures, record.generation, offset, known)
        known |= applied.local
        stored.append([result.stored for result in applied.results])
    # One of the three has an id that the gateway made, which is remembered now.
    assert stored == [[3], [0], [0]]


def test_a_replay_changes_nothing_of_a_capture_but_what_is_remembered_and_how_long() -> None:
    record = captures_codec.decode(replay_of(letter(), encode(FORGETFUL), 1).value)
    (again,) = map(decode_captured, record.captures)
    assert all(message.remembered for message in again.messages)
    for message, original in zip(again.messages, CAPTURED.messages, strict=True):
        message.remembered = original.remembered
    assert again == msgspec.structs.replace(CAPTURED, remember_days=0)


def test_of_a_whole_record_what_cant_be_decoded_remains() -> None:
    whole = letter("undecodable_record", index=WHOLE_RECORD)
    value = captures_codec.encode(CapturesRecord(1, 9, [FRAME, b"\xc1", FRAME]))
    replay = replay_of(whole, value, 2)
    assert replay.parts == len(captures_codec.decode(replay.value).captures) == 2
    ((part, frame),) = replay.remaining
    assert frame == b"\xc1"
    assert part.reason == "undecodable_capture"
    assert part.source == letter(index=1).source


def test_a_record_of_messages_is_replayed_as_it_is() -> None:
    value = path_of(NEWEST["messages"]).read_bytes()
    replay = replay_of(letter("rejected_row", topics.MESSAGES), value, 1)
    assert (replay.value, replay.remaining) == (value, [])


def test_of_a_record_of_messages_what_cant_be_decoded_remains() -> None:
    good = messages_codec.decode(path_of(NEWEST["messages"]).read_bytes())
    bad = Change(bytes(16), msgspec.Raw(encode("no state")), msgspec.Raw(encode([])))
    whole = letter("undecodable_output", topics.MESSAGES, WHOLE_RECORD)
    replay = replay_of(whole, messages_codec.encode([*good, bad]), 1)
    assert replay.value == messages_codec.encode(good)
    ((part, value),) = replay.remaining
    assert value == messages_codec.encode([bad])
    assert (part.reason, part.source.topic, part.source.offset) == (
        "undecodable_output", topics.MESSAGES, whole.source.offset,
    )  # fmt: skip
    with pytest.raises(RefusedError):
        replay_of(part, value, 1)


@pytest.mark.parametrize(
    ("refused", "value"),
    [
        (letter(), b"\xc1"),
        (letter(index=WHOLE_RECORD), b"\x09 no record"),
        (letter("undecodable_output", topics.MESSAGES, WHOLE_RECORD), b"\x01 nothing"),
        (letter("rejected_row", topics.MESSAGES), b'{"content":"as the first release kept it"}'),
        (letter("other", topics.DEAD_LETTERS), FRAME),
    ],
)
def test_what_cant_be_processed_now_either_is_refused(refused: DeadLetter, value: bytes) -> None:
    with pytest.raises(RefusedError):
        replay_of(refused, value, 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (FRAME, {"external_id": "order-4711-ü", "chatbot_id": str(UUID(bytes=bytes(range(16))))}),
        (RECORD, {"generation": 3, "reply_partition": 1, "captures": ["c1"]}),
        (b"\x09" + msgspec.msgpack.encode({"a": [1], "b": b"\xff"}), {"a": [1], "b": "ff"}),
        (b'{"content": "text"}', {"content": "text"}),
    ],
)  # fmt: skip
def test_what_can_be_decoded_is_shown_as_json(value: bytes, expected: dict[str, Any]) -> None:
    found = json.loads(shown(value))
    assert {name: found[name] for name in expected} == expected


def test_messages_are_shown_with_their_names() -> None:
    value = path_of(NEWEST["messages"]).read_bytes()
    assert messages_codec.decode(value)
    change = json.loads(shown(value))[0]
    assert change["state"]["external_id"] == STATE.external_id
    assert change["messages"][0]["content"] == NEW[0].content


def test_the_rest_is_shown_as_hex_and_no_value_without_end() -> None:
    assert shown(b"\xc1\x00\xff") == "c100ff"
    long = shown(b"\xc1" * 100_000)
    assert len(long) < shown_module.SHOWN_CHARACTERS + 100
    assert "--raw" in long


def test_what_is_shown_can_not_command_a_terminal() -> None:
    hostile = "a\x1b]0;title\x07\x9bH\u202eb"
    frame = encode(
        Captured(
            bytes(16), bytes(16), hostile, 1, True, [CapturedMessage("m", "user", "", 1, True)], {}
        )
    )
    text = shown(frame)
    assert json.loads(text)["external_id"] == hostile
    assert all(character.isprintable() or character == "\n" for character in text)


@contextlib.contextmanager
def served(metrics: Metrics) -> Iterator[str]:
    port = free_port()
    server = serve(metrics.registry, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def test_letters_are_counted_by_reason_for_prometheus() -> None:
    metrics = Metrics()
    metrics.dead_letter("rejected_row")
    metrics.dead_letter("rejected_row")
    with served(metrics) as url:
        text = httpx.get(url, trust_env=False).text
        assert 'openbat_dead_letters_total{reason="rejected_row"} 2.0' in text
        assert 'openbat_dead_letters_total{reason="undecodable_capture"} 0.0' in text
        with pytest.raises(SettingsError, match="OPENBAT_METRICS_PORT"):
            serve(Metrics().registry, "127.0.0.1", httpx.URL(url).port or 0)


class Topic:
    """`openbat dead-letters`, over a letter in memory."""

    def __init__(self) -> None:
        self.letters = listed(sent(0, letter()))

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        try:
            return CliRunner().invoke(cli.app, ["dead-letters", *arguments], input=stdin)
        finally:
            logging.disable(logging.NOTSET)

    async def read(self, _: Connection) -> list[Listed]:
        return self.letters

    async def values(
        self, _: Connection, letters: Iterable[Listed]
    ) -> AsyncIterator[tuple[Listed, bytes]]:
        for each in letters:
            yield each, b"value"

    async def drop(
        self, _: Connection, letters: Iterable[Listed], done: Callable[[int], None]
    ) -> None:
        for each in letters:
            self.letters.remove(each)
            done(1)

    async def replay(self, *_: object) -> kafka.Totals:
        return kafka.Totals(replayed=1)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    made = Topic()
    monkeypatch.setattr(commands, "connection", lambda: Connection("nowhere"))
    monkeypatch.setattr(reading, "read", made.read)
    monkeypatch.setattr(reading, "values", made.values)
    monkeypatch.setattr(kafka, "drop", made.drop)
    monkeypatch.setattr(kafka, "replay", made.replay)
    return made


def test_dropping_asks_first_though_ids_are_given(topic: Topic) -> None:
    (there,) = topic.letters
    assert isinstance(topic.run("drop", there.id).exception, UnansweredError)
    asked = topic.run("drop", there.id, stdin="n\n")
    assert (asked.exit_code, asked.stdout) == (1, "")
    assert "1 dead letter: undecodable_capture 1. Drop them?" in asked.stderr
    assert topic.letters == [there]
    assert topic.run("drop", there.id, stdin="y\n").stdout == "dropped=1\n"
    assert topic.letters == []


def test_dropping_and_replaying_do_not_ask_where_told_so(topic: Topic) -> None:
    (there,) = topic.letters
    assert topic.run("replay", there.id).stdout == "replayed=1 refused=0\n"
    assert isinstance(topic.run("replay", "--all").exception, UnansweredError)
    assert topic.run("replay", "--all", "--yes").stdout == "replayed=1 refused=0\n"
    assert topic.run("drop", there.id, "--yes").stdout == "dropped=1\n"


def test_the_time_is_shown_as_it_is_listed(topic: Topic) -> None:
    (there,) = topic.letters
    assert "  2025-01-31 12:00:00  " in topic.run("list").stdout
    assert "at          2025-01-31 12:00:00\n" in topic.run("show", there.id).stdout
    document = json.loads(topic.run("show", there.id, "--json").stdout)
    assert document["at"] == "2025-01-31T12:00:00+00:00"
