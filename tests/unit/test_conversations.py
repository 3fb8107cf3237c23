"""The conversations agent: what is sent for a record, and when the record is acked."""

from pathlib import Path
from typing import Any

import pytest

from schemas import sizes, topics
from schemas.records import (
    Captured,
    CapturedMessage,
    CaptureResult,
    CapturesRecord,
    RepliesRecord,
    analysis_codec,
    captures_codec,
    decode_new_messages,
    decode_state,
    encode,
    messages_codec,
    replies_codec,
)
from streams import apply
from streams.conversations import ConversationsAgent
from streams.dead_letters import DeadLetters
from streams.entries import changelog_ids_key, changelog_state_key, id_part, message_prefix
from streams.lanes import Received
from streams.sweep import Sweeper
from streams.table import SecondWriterError, WorkerTable
from streams.upsert import upsert
from streams.window import Windows
from tests.unit.fakes import Failures, FakeProducer, Sent, settled
from tests.unit.tables import open_table

PARTITION, REPLY_PARTITION = 1, 5
POISON_TIME = 11
CONVERSATION = bytes(range(16))


def capture(*ids: str, received_at: int = 10, analysis: bool = True) -> bytes:
    messages = [CapturedMessage(message_id, "user", "hi", 3, True) for message_id in ids]
    return encode(
        Captured(bytes(16), CONVERSATION, "external", received_at, analysis, messages, {})
    )


def record(*frames: bytes) -> bytes:
    return captures_codec.encode(CapturesRecord(1, REPLY_PARTITION, list(frames)))


class Worker:
    """An agent over a real store, and what it sends to."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.table: WorkerTable = open_table(directory)
        self.producer = FakeProducer(**options)
        self.failures = Failures()
        self.windows = Windows(10, self.failures)
        self.agent = ConversationsAgent(
            self.table,
            self.producer,
            DeadLetters(self.producer, lambda _: None),
            self.windows,
            Sweeper(self.table),
        )
        self.acked: list[int] = []

    def received(self, offset: int, value: bytes) -> Received:
        return Received(offset, value, lambda: self.acked.append(offset))

    async def take(self, offset: int, *values: bytes) -> list[Sent]:
        """Process records from the offset on as one gulp; return what was sent."""
        records = [self.received(offset + at, value) for at, value in enumerate(values)]
        await self.agent.process(PARTITION, records)
        return self.producer.all_sent()

    async def drained(self) -> None:
        await self.failures.unless(self.windows.drained())
        await self.windows.close()


def of(sent: list[Sent], topic: str) -> list[Sent]:
    assert all(each.partition == PARTITION for each in sent if each.topic != topics.REPLIES)
    return [each for each in sent if each.topic == topic]


def replies(sent: list[Sent]) -> list[RepliesRecord]:
    found = of(sent, topics.REPLIES)
    assert all(each.partition == REPLY_PARTITION for each in found)
    return [replies_codec.decode(each.value) for each in found]


async def test_a_record_is_answered_fanned_out_and_remembered(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    sent = await worker.take(7, record(capture("a", "b"), capture("b", "c", analysis=False)))
    await worker.drained()

    assert replies(sent) == [RepliesRecord(PARTITION, 7, [CaptureResult(2), CaptureResult(1)])]
    (messages,) = of(sent, topics.MESSAGES)
    (change,) = messages_codec.decode(messages.value)
    assert [message.id for message in decode_new_messages(change.messages)] == ["a", "b", "c"]
    state = decode_state(change.state)
    assert (state.conversation_id, state.message_count) == (CONVERSATION, 3)
    (analysis,) = of(sent, topics.ANALYSIS)
    (item,) = analysis_codec.decode(analysis.value)
    assert [message.id for message in decode_new_messages(item.messages)] == ["a", "b"]
    (changelog,) = of(sent, topics.CONVERSATIONS_CHANGELOG)
    first = decode_new_messages(change.messages)[0].position
    assert [key for key, _ in changelog.entries] == [
        changelog_ids_key(CONVERSATION, first),
        changelog_ids_key(CONVERSATION, first + 128),
        changelog_state_key(CONVERSATION, state.revision),
    ]
    keys = [message_prefix(CONVERSATION) + id_part(message_id) for message_id in "abcd"]
    assert list(worker.table.read(PARTITION, keys)) == keys[:3]
    assert worker.acked == [7]


async def test_records_of_a_gulp_share_their_outputs_and_have_an_answer_each(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    sent = await worker.take(0, record(capture("a")), record(capture("a", "b")), record())
    await worker.drained()
    assert replies(sent) == [
        RepliesRecord(PARTITION, 0, [CaptureResult(1)]),
        RepliesRecord(PARTITION, 1, [CaptureResult(1)]),
        RepliesRecord(PARTITION, 2, []),
    ]
    for topic in (topics.MESSAGES, topics.ANALYSIS, topics.CONVERSATIONS_CHANGELOG):
        assert len(of(sent, topic)) == 1
    assert worker.acked == [0, 1, 2]


async def test_what_cannot_be_decoded_takes_nothing_else_along(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    sent = await worker.take(0, b"\xffno record", record(capture("a"), b"no capture", capture("b")))
    await worker.drained()
    stored = [CaptureResult(1), CaptureResult(None), CaptureResult(1)]
    assert replies(sent) == [RepliesRecord(PARTITION, 1, stored)]
    letters = of(sent, topics.DEAD_LETTERS)
    assert [letter.value for letter in letters] == [b"\xffno record", b"no capture"]
    assert [
        (letter.headers["source-offset"], letter.headers["source-index"]) for letter in letters
    ] == [("0", "-1"), ("1", "1")]
    reasons = [letter.headers["reason"] for letter in letters]
    assert reasons == ["undecodable_record", "undecodable_capture"]
    assert [key for letter in letters for key, _ in letter.entries] == [
        b"captures/1/0/-1", b"captures/1/1/1",
    ]  # fmt: skip
    assert worker.acked == [0, 1]


async def test_a_record_is_acked_only_when_all_that_it_led_to_is_acknowledged(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path)
    sent = await worker.take(0, record(capture("a"), b"no capture"))
    assert {each.topic for each in sent} == {
        topics.REPLIES,
        topics.MESSAGES,
        topics.ANALYSIS,
        topics.CONVERSATIONS_CHANGELOG,
        topics.DEAD_LETTERS,
    }
    for each in sent:
        await settled()
        assert worker.acked == []
        each.acknowledge(0)
    await worker.drained()
    assert worker.acked == [0]


async def test_the_next_record_knows_what_is_not_acknowledged_yet(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    await worker.take(0, record(capture("a")))
    sent = await worker.take(1, record(capture("a", "b")))
    assert replies(sent) == [RepliesRecord(PARTITION, 1, [CaptureResult(1)])]
    await worker.windows.close()


async def test_a_replay_answers_as_before_and_writes_no_entry(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    value = record(capture("a", "b"))
    first = await worker.take(0, value)
    await worker.take(1, record(capture("b", "c")))
    again = await worker.take(0, value)
    await worker.drained()
    assert replies(again) == replies(first)
    assert of(again, topics.CONVERSATIONS_CHANGELOG) == []
    (before,), (after,) = of(first, topics.ANALYSIS), of(again, topics.ANALYSIS)
    (before_item,), (after_item,) = (analysis_codec.decode(each.value) for each in (before, after))
    assert before_item.messages == after_item.messages
    assert worker.acked == [0, 1, 0]


async def test_entries_that_do_not_fit_into_one_batch_become_several(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True, batch_bytes=400)
    sent = await worker.take(0, *[record(capture(f"{number}")) for number in range(20)])
    await worker.drained()
    changelog = of(sent, topics.CONVERSATIONS_CHANGELOG)
    assert len(changelog) > 3
    entries = [entry for each in changelog for entry in each.entries]
    assert len(entries) == 20 + 20 + 19
    assert all(len(each.value) <= 400 for each in changelog)
    assert worker.acked == list(range(20))


async def test_outputs_are_split_below_their_limit(tmp_path: Path) -> None:
    large = encode(
        Captured(
            bytes(16), CONVERSATION, "external", 10, True,
            [CapturedMessage("a", "user", "x" * sizes.OUTPUT_BATCH, 3, True)], {},
        )
    )  # fmt: skip
    worker = Worker(tmp_path, acknowledging=True)
    sent = await worker.take(0, record(large), record(capture("b")))
    await worker.drained()
    assert len(of(sent, topics.MESSAGES)) == 2
    assert len(of(sent, topics.ANALYSIS)) == 2


async def test_a_reply_that_would_get_too_large_names_no_fields(tmp_path: Path) -> None:
    """As a foreign record's may: what a gateway takes never has so many."""
    names = {f"{number:03x}": 1 for number in range(16**3)}
    sent = {"custom": {"full": "x" * (sizes.FIELDS - 200)}}
    full = encode(Captured(bytes(16), CONVERSATION, "c", 10, True, [], sent))
    more = encode(Captured(bytes(16), CONVERSATION, "c", 10, True, [], {"organization": names}))
    worker = Worker(tmp_path, acknowledging=True)
    found = await worker.take(0, record(full, *[more] * 120))
    await worker.drained()
    (reply,) = replies(found)
    assert len(reply.results) == 121
    assert not any(result.left_out for result in reply.results)
    (reply,) = replies(await worker.take(1, record(full, more)))
    assert len(reply.results[1].left_out) > 4_000


async def test_a_second_writer_of_the_changelog_ends_the_acking(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    for each in await worker.take(0, record(capture("a"))):
        each.acknowledge(1)
    assert isinstance(await worker.failures.seen.get(), SecondWriterError)
    for each in await worker.take(1, record(capture("b"))):
        each.acknowledge(2)
    await settled()
    assert worker.acked == []
    await worker.windows.close()


async def test_a_capture_that_cant_be_applied_is_a_dead_letter_and_its_neighbours_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upsert_but_not_poison(*args: Any) -> Any:
        if args[1].received_at == POISON_TIME:
            raise OverflowError("too 'secret' a number")
        return upsert(*args)

    monkeypatch.setattr(apply, "upsert", upsert_but_not_poison)
    worker = Worker(tmp_path, acknowledging=True)
    poison = capture("b", received_at=POISON_TIME)
    sent = await worker.take(0, record(capture("a"), poison, capture("b")), record(capture("c")))
    await worker.drained()
    (letter,) = of(sent, topics.DEAD_LETTERS)
    assert letter.value == poison
    assert letter.headers["reason"] == "failed_capture"
    assert letter.headers["detail"] == "OverflowError: too ..."
    replies = [replies_codec.decode(each.value).results for each in of(sent, topics.REPLIES)]
    assert [[result.stored for result in results] for results in replies] == [[1, None, 1], [1]]
    assert worker.acked == [0, 1]


async def test_a_record_without_a_value_is_a_dead_letter(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    sent = await worker.take(0, b"")
    await worker.drained()
    assert [letter.value for letter in of(sent, topics.DEAD_LETTERS)] == [b""]
    assert worker.acked == [0]
