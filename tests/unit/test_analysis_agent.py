"""The analysis agent: what is asked and sent for a record, and when the record is acked."""

import asyncio
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust.types
import msgspec
import pytest
from aiokafka.errors import KafkaError

from analysis import panel
from analysis.panel import Panel
from analysis.protocol import Finding, SubjectError, UnavailableError
from schemas import sizes, topics
from schemas.analyses import WHOLE_CONVERSATION, Analysed, Analysis, analyses_codec
from schemas.analysis import Kind
from schemas.capture import Role
from schemas.chatbots import ChatbotSettings
from schemas.codec import UndecodableError
from schemas.records import AnalysisItem, NewMessage, analysis_codec, encode
from streams import analysis
from streams.analysis import AnalysisAgent
from streams.app import make_app
from streams.asking import NO_MESSAGES
from streams.context import (
    CONTEXT,
    DUE,
    FOUND,
    Quiet,
    context_key,
    found_key,
    remembered,
    replay_entry,
)
from streams.dead_letters import DeadLetters
from streams.lanes import Received
from streams.share import MESSAGES_AT_ONCE
from streams.table import WorkerTable
from streams.window import Windows
from tests.property.worker import Entry, compacted
from tests.unit.fakes import NO_SETTINGS, Failures, FakeAnalyzer, FakeProducer, Sent, settled

PARTITION = 1
QUIET = Quiet(judged=10, forgotten=100)
NOW = 1_000_000
CHATBOT, OTHER_CHATBOT = b"\1" * 16, b"\2" * 16
FIRST, SECOND, THIRD = (bytes([number]) * 16 for number in (11, 12, 13))
EVERY_KEY = (b"", b"\xff" * 60, 1_000_000)


def open_contexts(directory: Path, changelog: list[Entry]) -> WorkerTable:
    """Return a table of contexts, recovered from a changelog."""

    def fail(error: BaseException) -> None:
        raise AssertionError from error

    app = make_app(topics.ANALYSIS_GROUP, "127.0.0.1:1", 2, directory, "instance")
    app.finalize()
    table = WorkerTable(
        app, fail, 16 * sizes.MIB, replay_entry,
        name=topics.CONTEXTS_TABLE, partitions=2, beacon=app.tables.beacon,
    )  # fmt: skip
    app.tables.add(table)
    tp = faust.types.TP(table.changelog_topic_name, PARTITION)
    # The fake producer counts a topic's offsets from 0, whatever was recovered.
    app.tables.recovery.active_highwaters[tp] = -1
    table.apply_changelog_batch(
        SimpleNamespace(
            message=SimpleNamespace(partition=PARTITION, offset=at, key=key, value=value)
        )
        for at, (key, value) in enumerate(changelog)
    )
    return table


def message(
    position: int, content: str = "hi", role: Role = "user", received_at: int = 50
) -> NewMessage:
    return NewMessage(f"m{position}", role, content, 3, received_at, position)


def item(
    *messages: NewMessage, conversation: bytes = FIRST, chatbot: bytes = CHATBOT, **members: Any
) -> AnalysisItem:
    newest = max((each.position for each in messages), default=0)
    raw = msgspec.Raw(encode(list(messages)))
    return AnalysisItem(chatbot, conversation, raw, **{"revision": newest, **members})


def record(*items: AnalysisItem) -> bytes:
    return analysis_codec.encode(list(items))


UNDECODABLE = AnalysisItem(CHATBOT, SECOND, msgspec.Raw(encode([["no message"]])))


class Worker:
    """An agent over a real store, and what it sends to."""

    def __init__(
        self,
        directory: Path,
        *analyzers: Any,
        changelog: list[Entry] | None = None,
        acknowledging: bool = True,
    ) -> None:
        self.table = open_contexts(directory, changelog or [])
        self.producer = FakeProducer(acknowledging=acknowledging)
        self.failures = Failures()
        self.windows = Windows(10, self.failures)
        self.panel = Panel(analyzers, None, lambda *_: None)
        self.settings: dict[bytes, ChatbotSettings] = {}
        self.clock = NOW
        self.agent = AnalysisAgent(
            self.table,
            self.producer,
            DeadLetters(self.producer, lambda _: None),
            self.windows,
            self.panel,
            lambda chatbot_id: self.settings.get(chatbot_id, NO_SETTINGS),
            QUIET,
            lambda: self.clock,
        )
        self.acked: list[int] = []
        self.changelog: list[Entry] = []

    def received(self, offset: int, values: tuple[bytes, ...]) -> list[Received]:
        return [
            Received(at, value, partial(self.acked.append, at))
            for at, value in enumerate(values, start=offset)
        ]

    async def take(self, offset: int, *values: bytes) -> list[Sent]:
        """Process records of `analysis` as one gulp; return what was sent."""
        await self.agent.process(PARTITION, self.received(offset, values))
        return self.sent()

    async def take_later(self, offset: int, *values: bytes) -> list[Sent]:
        """Process records of `analysis-later` as one gulp; return what was sent."""
        await self.agent.process_later(PARTITION, self.received(offset, values))
        return self.sent()

    def sent(self) -> list[Sent]:
        sent = self.producer.all_sent()
        self.changelog += [entry for each in of(sent, topics.CONTEXTS_CHANGELOG)
                           for entry in each.entries]  # fmt: skip
        return sent

    async def settle(self) -> None:
        """Return when all that was sent is acknowledged, and in the store."""
        await self.failures.unless(self.windows.drained())

    async def close(self) -> None:
        await self.settle()
        await self.windows.close()

    def kept(self) -> dict[bytes, int]:
        """Return how many entries of each kind the store holds."""
        keys = [key for key, _ in self.table.scan(PARTITION, *EVERY_KEY)]
        return {
            kind: sum(key[:1] == kind for key in keys)
            for kind in (CONTEXT, FOUND, DUE)
            if any(key[:1] == kind for key in keys)
        }


def of(sent: list[Sent], topic: str) -> list[Sent]:
    assert all(each.partition == PARTITION for each in sent)
    return [each for each in sent if each.topic == topic]


def analysed(sent: list[Sent]) -> list[Analysed]:
    found = of(sent, topics.ANALYSES)
    return [part for each in found for part in analyses_codec.decode(each.value)]


def results(sent: list[Sent]) -> list[Analysis]:
    return [result for part in analysed(sent) for result in part.results]


def kinds(sent: list[Sent]) -> list[Kind]:
    return [finding.kind for each in results(sent) for finding in each.findings]


def keys(sent: list[Sent]) -> list[tuple[str, str, str, int, int]]:
    """Return what ClickHouse keeps one row of each for."""
    return sorted(
        (each.message_id, finding.kind, each.analyzer, each.revision, each.run)
        for each in results(sent)
        for finding in each.findings
    )


def put_off(sent: list[Sent]) -> list[AnalysisItem]:
    found = of(sent, topics.ANALYSIS_LATER)
    return [each for one in found for each in analysis_codec.decode(one.value)]


def ids(items: list[AnalysisItem]) -> list[list[str]]:
    decode = msgspec.msgpack.Decoder(list[NewMessage]).decode
    return [[each.id for each in decode(one.messages)] for one in items]


async def test_each_message_has_one_row_of_each_kind_that_its_role_has(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    said = [message(1), message(2, role="assistant"), message(3, role="system")]
    sent = await worker.take(7, record(item(*said)), record(item(message(4), conversation=SECOND)))
    await worker.close()
    of_user = ["flags", "intent", "sentiment", "topics"]
    assert keys(sent) == [
        *(("m1", kind, "a", 0, 0) for kind in of_user),
        ("m2", "behaviour", "a", 0, 0),
        *(("m4", kind, "a", 0, 0) for kind in of_user),
    ]
    assert [(part.chatbot_id, part.conversation_id) for part in analysed(sent)] == [
        (CHATBOT, FIRST), (CHATBOT, SECOND),
    ]  # fmt: skip
    assert results(sent)[1] == Analysis(
        "m2", "a", "1", received_at=50, position=2, revision=0, analysed_at=NOW,
        findings=(Finding("behaviour", "helpful"),), run=0,
    )  # fmt: skip
    assert {each.topic for each in sent} == {topics.ANALYSES, topics.CONTEXTS_CHANGELOG}
    assert worker.acked == [7, 8]


async def test_analyzers_are_told_what_was_said_before_and_the_chatbots_words(
    tmp_path: Path,
) -> None:
    analyzer = FakeAnalyzer("a")
    worker = Worker(tmp_path, analyzer)
    worker.settings[CHATBOT] = ChatbotSettings(intents=("refund",), flags=("legal", "abuse"))
    await worker.take(0, record(item(message(1, "one"), message(2, "two"))))
    await worker.take(1, record(item(message(3, "three"))))
    other = item(message(1, "one"), conversation=SECOND, chatbot=OTHER_CHATBOT)
    await worker.take(2, record(other))
    await worker.close()
    before = [[turn.content for turn in each.before] for each in analyzer.subjects]
    assert before == [[], ["one"], ["one", "two"], []]
    of_both = [each.vocabulary for each in analyzer.subjects[2:]]
    assert (of_both[0].intents, of_both[0].flags) == (("refund",), ("legal", "abuse"))
    assert "question" in of_both[1].intents
    assert [each.chatbot_id for each in analyzer.subjects[2:]] == [CHATBOT, OTHER_CHATBOT]


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_a_record_is_acked_only_when_all_that_it_led_to_is_acknowledged(
    tmp_path: Path, is_reversed: bool
) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"), acknowledging=False)
    many = item(*map(message, range(MESSAGES_AT_ONCE + 1)), conversation=THIRD,
                chatbot=OTHER_CHATBOT)  # fmt: skip
    sent = await worker.take(0, record(item(message(1)), UNDECODABLE, many))
    assert {each.topic for each in sent} == {
        topics.ANALYSES, topics.ANALYSIS_LATER, topics.DEAD_LETTERS, topics.CONTEXTS_CHANGELOG,
    }  # fmt: skip
    for each in reversed(sent) if is_reversed else sent:
        await settled()
        assert worker.acked == []
        assert worker.kept() == {}
        each.acknowledge(0)
    await worker.close()
    assert worker.acked == [0]
    assert worker.kept() == {CONTEXT: 2, DUE: 2}


async def test_the_next_record_knows_what_is_not_acknowledged_yet(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer("a")
    worker = Worker(tmp_path, analyzer, acknowledging=False)
    await worker.take(0, record(item(message(1, "one"))))
    await worker.take(1, record(item(message(2, "two"))))
    await worker.windows.close()
    assert [turn.content for turn in analyzer.subjects[-1].before] == ["one"]


async def test_a_replay_gives_the_same_rows_and_writes_no_entry(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    value = record(item(message(1), message(2, role="assistant")))
    first = await worker.take(0, value)
    await worker.take(1, record(item(message(3))))
    again = await worker.take(0, value)
    await worker.close()
    assert keys(again) == keys(first) != []
    assert of(again, topics.CONTEXTS_CHANGELOG) == []
    assert worker.acked == [0, 1, 0]


async def test_a_recovered_worker_goes_on_where_the_other_was(tmp_path: Path) -> None:
    before = Worker(tmp_path / "before", FakeAnalyzer("a"))
    await before.take(0, record(item(message(1, "one"))))
    await before.take(1, record(item(message(2, "two"))))
    await before.close()
    analyzer = FakeAnalyzer("a")
    after = Worker(tmp_path / "after", analyzer, changelog=before.changelog)
    await after.take(2, record(item(message(3, "three", received_at=59))))
    assert [turn.content for turn in analyzer.subjects[0].before] == ["one", "two"]
    await after.settle()
    sent = await after.take(3, record(item(message(9, received_at=70), conversation=SECOND)))
    assert ("", "resolution", "a", 3, 0) in keys(sent)
    await after.close()


async def test_what_is_switched_off_is_not_asked(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer("a")
    worker = Worker(tmp_path, analyzer)
    worker.settings[CHATBOT] = ChatbotSettings(analysis_off=("intent", "topics", "behaviour"))
    sent = await worker.take(0, record(item(message(1), message(2, role="assistant"))))
    await worker.close()
    assert [each.kinds for each in analyzer.subjects] == [{"sentiment", "flags"}]
    assert kinds(sent) == ["sentiment", "flags"]


async def test_with_all_switched_off_only_what_was_said_is_remembered(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer("a")
    worker = Worker(tmp_path, analyzer)
    worker.settings[CHATBOT] = ChatbotSettings(analysis=False)
    sent = await worker.take(0, record(item(message(1))))
    await worker.settle()
    later = await worker.take_later(0, record(item(message(1), said=[])))
    sent += await worker.take(1)
    await worker.close()
    assert analyzer.asked == []
    assert later == []
    assert {each.topic for each in sent} == {topics.CONTEXTS_CHANGELOG}
    assert worker.acked == [0, 0]


async def test_what_cannot_be_decoded_takes_nothing_else_along(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    mixed = record(item(message(1), message(2)), UNDECODABLE, item(message(3), conversation=THIRD))
    sent = await worker.take(5, b"\xffno record", mixed, b"")
    await worker.close()
    letters = of(sent, topics.DEAD_LETTERS)
    assert [each.value for each in letters] == [b"\xffno record", record(UNDECODABLE), b""]
    assert {each.headers["reason"] for each in letters} == {"undecodable_output"}
    assert [key for each in letters for key, _ in each.entries] == [
        b"analysis/1/5/-1", b"analysis/1/6/3", b"analysis/1/7/-1",
    ]  # fmt: skip
    assert {each.message_id for each in results(sent)} == {"m1", "m2", "m3"}
    assert worker.acked == [5, 6, 7]


async def test_what_can_not_be_analysed_is_a_dead_letter_that_asks_that_analyzer_again(
    tmp_path: Path,
) -> None:
    broken = FakeAnalyzer("broken", answers={"bad": SubjectError("can't")})
    sound = FakeAnalyzer("sound")
    worker = Worker(tmp_path, broken, sound)
    await worker.take(0, record(item(message(1, "one"))))
    sent = await worker.take(1, record(item(message(2, "bad"), message(3, "three"), revision=9)))
    (letter,) = of(sent, topics.DEAD_LETTERS)
    assert letter.headers["reason"] == "failed_analysis"
    assert letter.entries[0][0] == b"analysis/1/1/1"
    assert [key[:3] for key in keys(sent) if key[0] == "m2"] == [
        ("m2", kind, "sound") for kind in ("flags", "intent", "sentiment", "topics")
    ]
    assert {key[2] for key in keys(sent) if key[0] == "m3"} == {"broken", "sound"}
    asked_before = next(each for each in broken.subjects if each.message
                        and each.message.id == "m2")  # fmt: skip

    broken.answers.clear()
    broken.subjects.clear()
    sound.subjects.clear()
    again = await worker.take(2, letter.value)
    await worker.close()
    assert broken.subjects == [asked_before]
    assert sound.subjects == []
    assert {key[:3:2] for key in keys(again)} == {("m2", "broken")}
    assert of(again, topics.CONTEXTS_CHANGELOG) == []


async def test_a_message_that_two_analyzers_fail_on_is_one_letter_that_asks_both(
    tmp_path: Path,
) -> None:
    broken = [FakeAnalyzer(name, answers={"bad": SubjectError("can't")}) for name in "ab"]
    worker = Worker(tmp_path, *broken, FakeAnalyzer("c"))
    sent = await worker.take(0, record(item(message(1, "bad"))))
    await worker.close()
    (letter,) = of(sent, topics.DEAD_LETTERS)
    (alone,) = analysis_codec.decode(letter.value)
    assert alone.analyzers == ["a", "b"]
    assert ids([alone]) == [["m1"]]


async def test_a_quiet_conversation_is_judged_once_and_again_when_it_goes_on(
    tmp_path: Path,
) -> None:
    analyzer = FakeAnalyzer("a")
    worker = Worker(tmp_path, analyzer)

    async def take(position: int, received_at: int, conversation: bytes) -> list[Any]:
        each = message(position, f"at {position}", received_at=received_at)
        sent = await worker.take(position, record(item(each, conversation=conversation)))
        await worker.settle()
        return [
            (each.revision, each.position, each.received_at)
            for each in results(sent)
            if each.message_id == WHOLE_CONVERSATION
        ]

    assert await take(1, 50, FIRST) == []
    assert await take(2, 55, FIRST) == []
    assert await take(3, 64, SECOND) == []
    assert await take(4, 66, THIRD) == [(2, 2, 2)]
    asked = next(each for each in analyzer.subjects if each.message is None)
    assert [turn.content for turn in asked.before] == ["at 1", "at 2"]
    assert asked.kinds == {"resolution"}
    assert await take(5, 67, THIRD) == []
    assert await take(6, 70, FIRST) == []
    assert await take(7, 75, THIRD) == [(3, 3, 3)]
    assert await take(8, 81, THIRD) == [(6, 6, 6)]
    await worker.close()
    assert worker.kept() == {CONTEXT: 3, DUE: 3}


async def test_time_is_that_of_records_and_only_without_any_the_clocks(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    worker.clock = 10**12
    await worker.take(0, record(item(message(1))))
    await worker.settle()
    sent = await worker.take(1, record(item(message(2, received_at=51), conversation=SECOND)))
    await worker.settle()
    assert "resolution" not in kinds(sent)
    assert await worker.take(2, b"\xffno record") != []
    worker.clock = 60
    assert await worker.take(3) == []
    worker.clock = 61
    assert keys(await worker.take(3)) == [("", "resolution", "a", 1, 0)]
    await worker.settle()
    assert await worker.take(3) == []
    worker.clock = 62
    assert keys(await worker.take(3)) == [("", "resolution", "a", 2, 0)]
    await worker.close()


async def test_a_record_from_the_future_makes_no_conversation_quiet(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    worker.clock = 55
    await worker.take(0, record(item(message(1))))
    await worker.settle()
    future = message(2, received_at=10**9)
    sent = await worker.take(1, record(item(future, conversation=SECOND)))
    await worker.close()
    assert {each.message_id for each in results(sent)} == {"m2"}


async def test_a_conversation_counts_as_judged_only_when_its_row_is_acknowledged(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    await worker.take(0, record(item(message(1))))
    await worker.settle()
    worker.producer.acknowledging = False
    judging = asyncio.create_task(worker.agent.process(PARTITION, []))
    await settled()
    sent = worker.sent()
    assert len(results(sent)) == 1
    assert of(sent, topics.CONTEXTS_CHANGELOG) == []
    sent[0].acknowledge(1)
    await judging
    assert len(of(worker.sent(), topics.CONTEXTS_CHANGELOG)) == 1
    # Nor is it judged twice while that is on its way.
    assert await worker.take(1) == []
    await worker.windows.close()


async def test_what_came_just_now_puts_its_conversation_off(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    await worker.take(0, record(item(message(1))))
    await worker.settle()
    sent = await worker.take(1, record(item(message(2, received_at=70))))
    assert "resolution" not in kinds(sent)
    await worker.close()
    assert worker.kept() == {CONTEXT: 1, DUE: 1}


async def test_only_so_many_quiet_conversations_are_judged_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "DUE_AT_ONCE", 2)
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    new = [item(message(1), conversation=each) for each in (FIRST, SECOND, THIRD)]
    await worker.take(0, record(*new))
    judged = []
    worker.clock = 61
    for _ in range(3):
        await worker.settle()
        judged.append(len(results(await worker.take(1))))
    await worker.close()
    assert judged == [2, 1, 0]


async def test_a_conversation_that_was_judged_long_ago_is_forgotten(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a", paid=True))
    await worker.take(0, record(item(message(1), message(2, role="assistant"))))
    await worker.settle()
    assert worker.kept() == {CONTEXT: 1, DUE: 1, FOUND: 2}
    worker.clock = 150
    for _ in range(2):
        await worker.take(1)
        await worker.settle()
    assert worker.kept() == {CONTEXT: 1, DUE: 1, FOUND: 3}  # what was found of the whole too
    worker.clock = 151
    await worker.take(1)
    await worker.close()
    assert worker.kept() == {}
    assert compacted(worker.changelog, tombstones_expired=True) == []


async def test_a_hot_chatbots_messages_are_put_off_and_no_others(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer("a", batch_size=1_000)
    worker = Worker(tmp_path, analyzer)
    half = MESSAGES_AT_ONCE // 2
    hot = [
        item(*(message(at, f"{at}") for at in range(half * part, half * (part + 1))))
        for part in range(4)
    ]
    other = item(message(999, "other"), conversation=SECOND, chatbot=OTHER_CHATBOT)
    sent = await worker.take(0, record(*hot), record(other))
    answered = {each.message_id for each in results(sent)}
    assert answered == {*(f"m{at}" for at in range(2 * half)), "m999"}
    assert analyzer.subjects[-1].message
    assert analyzer.subjects[-1].message.content == "other"
    later = put_off(sent)
    assert [each[0] for each in ids(later)] == [f"m{2 * half}", f"m{3 * half}"]
    assert [len(each.said or []) for each in later] == [12, 12]

    sent = await worker.take_later(0, *(each.value for each in of(sent, topics.ANALYSIS_LATER)))
    await worker.close()
    assert put_off(sent) == []
    assert {each.message_id for each in results(sent)} == {
        f"m{at}" for at in range(2 * half, 4 * half)
    }
    for subject in analyzer.subjects:
        assert subject.message
        if subject.message.content != "other":
            at = int(subject.message.content)
            before = [turn.content for turn in subject.before]
            assert before == [f"{each}" for each in range(max(0, at - 12), at)]
    assert worker.acked == [0, 1, 0]


async def test_what_comes_twice_in_one_gulp_is_asked_once(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer("a", paid=True)
    worker = Worker(tmp_path, analyzer)
    twice = item(message(1, "one"), message(2, "two"))
    put_off_twice = msgspec.structs.replace(twice, said=[])
    sent = await worker.take(0, record(twice, twice), record(twice))
    sent += await worker.take_later(0, record(put_off_twice), record(put_off_twice))
    other = msgspec.structs.replace(put_off_twice, run=7)
    sent += await worker.take_later(2, record(other, put_off_twice, other))
    await worker.close()
    asked = [subject.message.id for subject in analyzer.subjects if subject.message]
    assert asked == ["m1", "m2", "m1", "m2"]  # the re-analysis asks again, once
    assert worker.acked == [0, 1, 0, 1, 2]


async def test_a_conversation_that_begins_with_too_many_is_put_off_too(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer("a")
    worker = Worker(tmp_path, analyzer)
    many = item(*map(message, range(MESSAGES_AT_ONCE + 1)))
    sent = await worker.take(0, record(many))
    again = await worker.take(1, *(each.value for each in of(sent, topics.ANALYSIS_LATER)))
    await worker.close()
    assert analyzer.asked == []
    assert put_off(sent) == put_off(again) == [msgspec.structs.replace(many, said=[])]


async def test_what_a_paid_analyzer_found_is_kept_before_its_results_are_sent(
    tmp_path: Path,
) -> None:
    paid, free = FakeAnalyzer("paid", paid=True), FakeAnalyzer("free")
    worker = Worker(tmp_path / "before", paid, free)
    worker.producer.failing = KafkaError("away")
    value = record(item(message(1), message(2, role="assistant")))
    with pytest.raises(KafkaError):
        await worker.take(0, value)
    worker.sent()
    await worker.close()
    assert [key for key, _ in worker.changelog] == [
        found_key(FIRST, position, "paid", "1", whole=False) for position in (1, 2)
    ]
    assert worker.acked == []

    after = Worker(tmp_path / "after", paid, free, changelog=worker.changelog)
    sent = await after.take(0, value)
    again = await after.take(0, value)
    await after.close()
    assert len(paid.subjects) == 2
    assert len(free.subjects) == 2 * 3
    assert {key[2] for key in keys(sent)} == {"paid", "free"}
    assert keys(again) == keys(sent)
    assert len(keys(sent)) == 2 * 5


async def test_a_judgement_that_was_paid_for_is_not_paid_for_again(tmp_path: Path) -> None:
    paid = FakeAnalyzer("paid", paid=True, answers={"bye": (Finding("resolution", "partially"),)})
    worker = Worker(tmp_path / "before", paid)
    await worker.take(0, record(item(message(1, "bye", role="system"))))
    await worker.settle()
    worker.producer.failing = KafkaError("away")
    with pytest.raises(KafkaError):
        await worker.take(1)
    worker.sent()
    await worker.close()
    after = Worker(tmp_path / "after", paid, changelog=worker.changelog)
    (result,) = results(await after.take(1))
    await after.close()
    assert (result.findings, result.revision) == ((Finding("resolution", "partially"),), 1)
    assert paid.asked == [["bye"]]


async def test_what_was_found_and_can_not_be_read_is_asked_again(tmp_path: Path) -> None:
    paid = FakeAnalyzer("paid", paid=True)
    key = found_key(FIRST, 1, "paid", "1", whole=False)
    worker = Worker(tmp_path, paid, changelog=[(key, b"\xff of another release")])
    sent = await worker.take(0, record(item(message(1))))
    await worker.close()
    assert len(paid.subjects) == 1
    assert len(kinds(sent)) == 4


async def test_another_version_of_a_paid_analyzer_is_asked(tmp_path: Path) -> None:
    paid = FakeAnalyzer("paid", paid=True)
    worker = Worker(tmp_path, paid)
    await worker.take(0, record(item(message(1))))
    paid.version = "2"
    sent = await worker.take(0, record(item(message(1))))
    await worker.close()
    assert len(paid.subjects) == 2
    assert {each.version for each in results(sent)} == {"2"}


async def test_a_re_analysis_asks_again_and_leaves_nothing_behind(tmp_path: Path) -> None:
    paid = FakeAnalyzer("paid", paid=True)
    worker = Worker(tmp_path, paid)
    await worker.take(0, record(item(message(1))))
    await worker.settle()
    before = worker.kept()
    messages = item(message(1), message(2), said=[], run=77)
    said = [remembered(message(1)), remembered(message(2))]
    whole = AnalysisItem(CHATBOT, SECOND, NO_MESSAGES, 9, said, [], 77)
    sent = await worker.take_later(0, record(messages, whole))
    await worker.close()
    assert len(paid.subjects) == 1 + 3
    assert {key[::4] for key in keys(sent)} == {("m1", 77), ("m2", 77), ("", 77)}
    assert {each.revision for each in results(sent) if not each.message_id} == {9}
    assert {each.topic for each in sent} == {topics.ANALYSES}
    assert worker.kept() == before


async def test_a_re_analysis_may_name_whom_it_asks(tmp_path: Path) -> None:
    model, other = FakeAnalyzer("llm:secret-model"), FakeAnalyzer("other")
    worker = Worker(tmp_path, model, other)
    await worker.take_later(0, record(item(message(1), said=[], analyzers=["llm"], run=1)))
    await worker.close()
    assert (len(model.subjects), len(other.subjects)) == (1, 0)


async def test_what_fails_later_names_the_record_of_later(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a", answers={"bad": SubjectError("can't")}))
    sent = await worker.take_later(3, record(UNDECODABLE, item(message(1, "bad"), said=[])))
    await worker.close()
    found = [key for each in of(sent, topics.DEAD_LETTERS) for key, _ in each.entries]
    assert found == [b"analysis-later/1/3/0", b"analysis-later/1/3/2"]
    assert worker.acked == [3]


async def test_in_a_hurry_all_that_is_not_answered_is_put_off_and_acked(tmp_path: Path) -> None:
    quick, never = FakeAnalyzer("quick"), FakeAnalyzer("never", paid=True)
    never.going_on = asyncio.Semaphore(0)
    worker = Worker(tmp_path, quick, never)
    taking = asyncio.create_task(
        worker.take(0, record(item(message(1, "one"), message(2, "two"), revision=5)))
    )
    await settled()
    assert never.under_way == 1
    worker.panel.hurry()
    sent = await taking
    await worker.settle()
    assert {key[:3:2] for key in keys(sent)} == {("m1", "quick"), ("m2", "quick")}
    later = put_off(sent)
    assert ids(later) == [["m1"], ["m2"]]
    assert [each.analyzers for each in later] == [["never"], ["never"]]
    assert [each.revision for each in later] == [5, 5]
    assert worker.acked == [0]
    values = [each.value for each in of(sent, topics.ANALYSIS_LATER)]
    again = await worker.take_later(0, *values)
    assert put_off(again) == later

    worker.panel.go_on()
    never.going_on = None
    sent = await worker.take_later(1, *values)
    await worker.close()
    assert {key[:3:2] for key in keys(sent)} == {("m1", "never"), ("m2", "never")}
    assert [[turn.content for turn in each.before] for each in never.subjects[-2:]] == [
        [], ["one"],
    ]  # fmt: skip
    assert len(quick.subjects) == 2


async def test_a_conversation_that_is_put_off_is_judged_later_by_the_same_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "HURRIED_SECONDS", 0.01)
    analyzer = FakeAnalyzer("a")
    worker = Worker(tmp_path, analyzer)
    await worker.take(0, record(item(message(1, "one"))))
    await worker.settle()
    worker.clock = 100
    analyzer.going_on = asyncio.Semaphore(0)
    judging = asyncio.create_task(worker.take(1))
    await settled()
    worker.panel.hurry()
    sent = await judging
    await worker.settle()
    # In a hurry nothing new is begun.
    assert await worker.take(1) == []
    worker.panel.go_on()
    analyzer.going_on = asyncio.Semaphore(10)
    assert await worker.take(1) == []
    sent = await worker.take_later(0, *(each.value for each in of(sent, topics.ANALYSIS_LATER)))
    await worker.close()
    assert keys(sent) == [("", "resolution", "a", 1, 0)]
    assert [turn.content for turn in analyzer.subjects[-1].before] == ["one"]


async def test_what_an_absent_analyzer_owes_holds_back_no_other(tmp_path: Path) -> None:
    present = FakeAnalyzer("here")
    absent = FakeAnalyzer("away:model", answers={"hi": UnavailableError("away", 5)})
    worker = Worker(tmp_path, absent, present)
    sent = await worker.take(0, record(item(message(1))))
    await worker.close()
    assert {each.analyzer for each in results(sent)} == {"here"}
    (owed,) = put_off(sent)
    assert owed.analyzers == ["away"]
    assert worker.acked == [0]


async def test_items_for_analyzers_that_are_not_here_are_dead_letters(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("here"))
    sent = await worker.take_later(0, record(item(message(1), analyzers=["gone"], said=[])))
    await worker.close()
    (letter,) = of(sent, topics.DEAD_LETTERS)
    assert letter.headers["reason"] == "failed_analysis"
    assert "no analyzer gone" in letter.headers["detail"]
    (again,) = analysis_codec.decode(letter.value)
    assert again.analyzers == ["gone"]
    assert results(sent) == []
    assert worker.acked == [0]


async def test_a_context_that_can_not_be_read_ends_the_worker(tmp_path: Path) -> None:
    worker = Worker(tmp_path, FakeAnalyzer("a"))
    worker.table.commit(PARTITION, {context_key(FIRST): bytes(9) + b"\xff"}, [(0, 1)])
    with pytest.raises(UndecodableError):
        await worker.take(0, record(item(message(1))))
    await worker.close()
    assert worker.acked == []


async def test_results_are_split_below_their_limit(tmp_path: Path) -> None:
    long = (Finding("topics", labels=("x" * 64,), reasoning="y" * 500),)
    contents = [f"{number}" for number in range(MESSAGES_AT_ONCE)]
    analyzer = FakeAnalyzer("a", answers=dict.fromkeys(contents, long))
    analyzer.kinds = frozenset({"topics"})
    worker = Worker(tmp_path, analyzer)
    new = [message(at, content) for at, content in enumerate(contents)]
    chatbots = [bytes([number]) * 16 for number in range(150)]
    sent = await worker.take(
        0, *(record(item(*new, conversation=each, chatbot=each)) for each in chatbots)
    )
    await worker.close()
    found = of(sent, topics.ANALYSES)
    assert len(found) > 1
    assert all(len(each.value) < sizes.OUTPUT_BATCH + sizes.KIB for each in found)
    assert len(results(sent)) == 150 * MESSAGES_AT_ONCE
