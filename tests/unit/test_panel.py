"""The panel: whom it asks, whom it believes, and what it does while one is away."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from msgspec import Raw

from analysis import panel as panel_module
from analysis.panel import PAID_AT_ONCE, Panel, Settled, Wanted, checked
from analysis.protocol import (
    AnalyzerError,
    Answer,
    Finding,
    OverBudgetError,
    Subject,
    SubjectError,
    Turn,
    UnavailableError,
    Vocabulary,
)
from schemas.analysis import KINDS, MAX_REASONING_CHARACTERS, Kind
from schemas.records import encode
from tests.unit.fakes import LONG_SECONDS, FakeAnalyzer, finding, settled

USER: frozenset[Kind] = frozenset({"sentiment", "intent", "topics", "flags"})
WORDS = Vocabulary(intents=("refund",), flags=("abuse", "legal"))


def subject(
    content: str = "hi", kinds: frozenset[Kind] = USER, words: Vocabulary = WORDS
) -> Subject:
    return Subject(bytes(16), Turn("m", "user", content, 0), (), kinds, words)


def asked(*contents: str) -> list[Subject]:
    return [subject(content) for content in contents]


async def test_analyzers_are_asked_about_nothing_first() -> None:
    broken = FakeAnalyzer("broken", raising=[RuntimeError("nothing to judge")])
    ready = FakeAnalyzer("ready")
    judged = Judged(broken, ready)
    await judged.panel.warm_up()
    assert [broken.asked, ready.asked, judged.outcomes] == [[[]], [[]], {}]


class Answered(NamedTuple):
    """One analyzer's answer about one subject."""

    number: int
    analyzer: Any
    answer: Settled


class Judged:
    """A panel, what it counted, and what it answered."""

    def __init__(self, *analyzers: Any, fallback: Any = None) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self.panel = Panel(analyzers, fallback, self._count)
        self.answered: list[Answered] = []

    def _count(self, analyzer: str, outcome: str, subjects: int) -> None:
        assert subjects >= 0
        self.counted[analyzer, outcome] += subjects

    async def judge(
        self,
        subjects: Sequence[Subject],
        wanted: Mapping[int, Wanted] | None = None,
        patience_seconds: float = 60,
    ) -> list[Answered]:
        async for analyzer, found in self.panel.judge(subjects, wanted or {}, patience_seconds):
            self.answered += [Answered(number, analyzer, answer) for number, answer in found]
        return self.answered

    @property
    def outcomes(self) -> dict[tuple[str, str], int]:
        return {key: count for key, count in self.counted.items() if count}


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel_module, "LONGEST_WAIT_SECONDS", 0.001)


@pytest.fixture
async def no_task_left() -> Callable[[], None]:
    """Return a check that no task is there that was not there before."""
    before = asyncio.all_tasks()

    def check() -> None:
        assert asyncio.all_tasks() - before == {asyncio.current_task()}

    return check


async def test_each_analyzer_is_asked_about_each_subject_in_batches_of_its_size() -> None:
    small, large = FakeAnalyzer("small", batch_size=2), FakeAnalyzer("large", batch_size=100)
    judged = Judged(small, large)
    answers = await judged.judge(asked(*"abcde"))
    assert small.asked == [["a", "b"], ["c", "d"], ["e"]]
    assert large.asked == [["a", "b", "c", "d", "e"]]
    assert [(each.number, each.analyzer.name) for each in answers] == [
        *((number, "small") for number in range(5)), *((number, "large") for number in range(5)),
    ]  # fmt: skip
    for each in answers:
        assert isinstance(each.answer, tuple)
        assert {found.kind for found in each.answer} == USER
    assert judged.outcomes == {("small", "analysed"): 5, ("large", "analysed"): 5}
    await judged.panel.close()
    assert (small.closed, large.closed) == (1, 1)


async def test_only_who_is_wanted_and_does_not_know_yet_is_asked() -> None:
    flags = FakeAnalyzer("flags", kinds=frozenset({"flags"}))
    model = FakeAnalyzer("llm:secret-model")
    judged = Judged(flags, model)
    limited = {
        "by name": Wanted(analyzers=frozenset({"flags"})),
        "by family": Wanted(analyzers=frozenset({"llm"})),
        "by full name": Wanted(analyzers=frozenset({"llm:secret-model"})),
        "by another": Wanted(analyzers=frozenset({"llm:other", "else"})),
        "known": Wanted(known=frozenset({(model.name, model.version)})),
        "old version": Wanted(known=frozenset({(model.name, "0")})),
    }
    await judged.judge(
        [*asked(*limited), subject("no flags", frozenset({"behaviour"})), subject("by all")],
        dict(enumerate(limited.values())),
    )
    assert flags.asked == [["by name", "known", "old version", "by all"]]
    assert model.asked == [["by family", "by full name", "old version", "no flags", "by all"]]


async def test_nobody_is_asked_about_nothing() -> None:
    analyzer = FakeAnalyzer("a")
    assert await Judged(analyzer).judge([]) == []
    assert analyzer.asked == []


SOUND = {
    "sentiment": Finding("sentiment", "positive", score=1),
    "intent": Finding("intent", "refund", reasoning="x" * MAX_REASONING_CHARACTERS),
    "topics": Finding("topics", labels=("a", "b" * 64, "c")),
    "flags": Finding("flags", labels=("legal",)),
    "behaviour": Finding("behaviour", "dodging"),
    "resolution": Finding("resolution", "fully"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_answer_is_believed(kind: Kind) -> None:
    analyzer = FakeAnalyzer("a")
    answer = (SOUND[kind],)
    asked = [subject(kinds=frozenset({kind}))]
    assert checked(analyzer, asked, [answer]) == [answer]
    assert checked(analyzer, asked, [Raw(encode(answer))]) == [answer]


def test_what_an_analyzer_can_not_be_asked_it_need_not_answer() -> None:
    analyzer = FakeAnalyzer("a", kinds=frozenset({"topics", "behaviour"}))
    answer = (SOUND["topics"],)
    asked = [subject(kinds=frozenset({"topics", "intent"}))]
    assert checked(analyzer, asked, [answer]) == [answer]


ANYTHING: Any = object()
UNSOUND: list[tuple[Kind, Any]] = [
    ("sentiment", ()),
    ("sentiment", (SOUND["sentiment"], SOUND["sentiment"])),
    ("sentiment", (SOUND["sentiment"], SOUND["topics"])),
    ("sentiment", (SOUND["intent"],)),
    ("sentiment", (Finding("sentiment", "glad", score=1),)),
    ("sentiment", (Finding("sentiment", "positive"),)),
    ("sentiment", (Finding("sentiment", "positive", score=1.01),)),
    ("sentiment", (Finding("sentiment", "positive", score=-1.01),)),
    ("sentiment", (Finding("sentiment", "positive", score=float("nan")),)),
    ("sentiment", (Finding("sentiment", "positive", score=float("inf")),)),
    ("sentiment", (Finding("sentiment", "positive", labels=("abuse",), score=1),)),
    ("intent", (Finding("intent", "question"),)),
    ("intent", (Finding("intent", ""),)),
    ("intent", (Finding("intent", "refund", score=0.5),)),
    ("intent", (Finding("intent", "refund", reasoning="x" * 501),)),
    ("topics", (Finding("topics", labels=("a", "b", "c", "d")),)),
    ("topics", (Finding("topics", labels=("",)),)),
    ("topics", (Finding("topics", labels=("x" * 65,)),)),
    ("topics", (Finding("topics", "a", labels=("a",)),)),
    ("flags", (Finding("flags", labels=("churn-risk",)),)),
    ("flags", (Finding("flags", "abuse"),)),
    ("behaviour", (Finding("behaviour", "rude"),)),
    ("resolution", (Finding("resolution", "positive"),)),
    # What its types do not allow, an analyzer of somebody else's may say all the same.
    ("intent", None),
    ("intent", Raw(b"")),
    ("intent", Raw(b"\xc1")),
    ("intent", Raw(encode((SOUND["intent"],)) * 2)),
    ("intent", "refund"),
    ("intent", ("refund",)),
    ("intent", ValueError("secret")),
    ("intent", AnalyzerError("secret")),
    ("intent", (ANYTHING,)),
    ("intent", (Finding("intent", "refund", reasoning=ANYTHING),)),
    ("intent", (Finding("intent", "refund", reasoning="\ud800"),)),
    ("intent", (Finding("intent", None),)),  # type: ignore[arg-type]
    ("sentiment", (Finding("sentiment", "positive", score="1"),)),  # type: ignore[arg-type]
    ("sentiment", (Finding("sentiment", "positive", score=ANYTHING),)),
    ("sentiment", (Finding("sentiment", "positive", score=2**70),)),
    ("flags", (Finding("flags", labels=(1,)),)),  # type: ignore[arg-type]
    ("flags", (Finding("flags", labels="abuse"),)),  # type: ignore[arg-type]
    ("topics", (Finding("moods", labels=("a",)),)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("kind", "answer"), UNSOUND)
async def test_an_answer_that_is_none_to_what_was_asked_fails_alone(
    kind: Kind, answer: Any
) -> None:
    analyzer = FakeAnalyzer("a", answers={"unsound": answer})
    judged = Judged(analyzer)
    kinds = frozenset({kind})
    answers = await judged.judge([subject(each, kinds) for each in ("sound", "unsound", "ok")])
    failed = [each.number for each in answers if isinstance(each.answer, SubjectError)]
    assert failed == [1]
    assert judged.outcomes == {("a", "analysed"): 2, ("a", "failed"): 1}
    assert "secret" not in str(answers[1].answer)


async def test_a_subject_that_can_never_be_analysed_is_answered_so() -> None:
    error = SubjectError("too strange")
    judged = Judged(FakeAnalyzer("a", answers={"strange": error}))
    answers = await judged.judge(asked("strange", "plain"))
    assert [each.answer is error for each in answers] == [True, False]


@pytest.mark.parametrize("answers", [None, 5, [], [()], [()] * 4], ids=repr)
async def test_another_number_of_answers_is_believed_of_none(answers: Any) -> None:
    class Miscounting(FakeAnalyzer):
        async def analyze(self, _subjects: Sequence[Subject]) -> Any:
            return answers

    judged = Judged(Miscounting("a"))
    found = await judged.judge(asked("a", "b", "c"))
    assert [each.number for each in found] == [0, 1, 2]
    assert all(isinstance(each.answer, SubjectError) for each in found)


async def test_where_an_analyzer_breaks_it_is_asked_about_each_alone() -> None:
    analyzer = FakeAnalyzer("a", answers={"b": ArithmeticError("about the secret")})
    judged = Judged(analyzer)
    answers = await judged.judge(asked("a", "b", "c"))
    assert analyzer.asked == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert [isinstance(each.answer, SubjectError) for each in answers] == [False, True, False]
    assert str(answers[1].answer) == "a raised ArithmeticError"


async def test_one_that_is_away_is_asked_again_until_it_is_back(no_wait: None) -> None:
    analyzer = FakeAnalyzer("a", raising=[UnavailableError("away", LONG_SECONDS)] * 3)
    judged = Judged(analyzer)
    answers = await judged.judge(asked("a", "b"))
    assert analyzer.asked == [["a", "b"]] * 4
    assert sorted(each.number for each in answers) == [0, 1]
    assert judged.outcomes == {("a", "analysed"): 2}


async def test_only_those_that_can_not_be_analysed_now_are_asked_again(no_wait: None) -> None:
    class Half(FakeAnalyzer):
        async def analyze(self, subjects: Sequence[Subject]) -> list[Answer]:
            found = await super().analyze(subjects)
            return found if len(self.asked) > 1 else [found[0], UnavailableError("away"), found[2]]

    analyzer = Half("a")
    judged = Judged(analyzer)
    answers = await judged.judge(asked("a", "b", "c"))
    assert analyzer.asked == [["a", "b", "c"], ["b"]]
    assert [each.number for each in answers] == [0, 2, 1]


def test_waits_are_jittered_grow_and_are_never_shorter_than_was_asked_for_nor_endless() -> None:
    waits = [{panel_module._wait_seconds(number, 0) for _ in range(200)} for number in range(12)]
    assert all(len(each) > 100 for each in waits)
    assert max(waits[0]) <= 0.5
    assert max(waits[0]) < max(waits[3]) < max(waits[11]) <= panel_module.LONGEST_WAIT_SECONDS
    assert panel_module._wait_seconds(0, 7) == 7
    assert panel_module._wait_seconds(0, LONG_SECONDS) == panel_module.LONGEST_WAIT_SECONDS


async def test_with_a_fallback_that_one_answers_at_once_for_who_is_away() -> None:
    away = FakeAnalyzer("llm:m", raising=[UnavailableError("away", LONG_SECONDS)])
    fallback = FakeAnalyzer("offline")
    judged = Judged(away, fallback=fallback)
    answers = await judged.judge(asked("a", "b"))
    assert [each.analyzer.name for each in answers] == ["offline", "offline"]
    assert judged.outcomes == {("llm:m", "fallback"): 2, ("offline", "analysed"): 2}


async def test_where_the_fallback_is_away_too_both_are_asked_again(no_wait: None) -> None:
    away = FakeAnalyzer("llm:m", raising=[UnavailableError("away")])
    fallback = FakeAnalyzer("llm:other", raising=[UnavailableError("away")])
    judged = Judged(away, fallback=fallback)
    answers = await judged.judge(asked("a", "b"))
    assert [(each.number, each.analyzer.name) for each in answers] == [(0, "llm:m"), (1, "llm:m")]


async def test_over_budget_the_fallback_answers_and_the_others_are_not_asked_twice() -> None:
    poor = FakeAnalyzer("llm:m", answers={"b": OverBudgetError()})
    fallback = FakeAnalyzer("offline")
    judged = Judged(poor, fallback=fallback)
    answers = await judged.judge(asked("a", "b", "c"))
    found = sorted((each.number, each.analyzer.name) for each in answers)
    assert found == [(0, "llm:m"), (1, "offline"), (2, "llm:m")]
    assert fallback.asked == [["b"]]
    assert judged.outcomes == {
        ("llm:m", "analysed"): 2, ("llm:m", "fallback"): 1, ("offline", "analysed"): 1,
    }  # fmt: skip


async def test_over_budget_without_a_fallback_there_is_no_answer_but_a_count() -> None:
    judged = Judged(FakeAnalyzer("llm:m", answers={"b": OverBudgetError()}))
    answers = await judged.judge(asked("a", "b", "c"))
    assert [each.number for each in answers] == [0, 2]
    assert judged.outcomes == {("llm:m", "analysed"): 2, ("llm:m", "over_budget"): 1}


async def test_an_answer_of_the_fallback_is_looked_at_too() -> None:
    poor = FakeAnalyzer("llm:m", answers={"a": OverBudgetError()})
    fallback = FakeAnalyzer("offline", answers={"a": (finding("topics"),)})
    (answer,) = await Judged(poor, fallback=fallback).judge(asked("a"))
    assert isinstance(answer.answer, SubjectError)
    assert answer.analyzer is fallback


@pytest.mark.parametrize(("paid", "most"), [(True, PAID_AT_ONCE), (False, 1)])
async def test_a_paid_analyzer_has_several_batches_under_way_and_another_one(
    paid: bool, most: int
) -> None:
    analyzer = FakeAnalyzer("a", batch_size=2, paid=paid)
    analyzer.going_on = asyncio.Semaphore(0)
    judged = Judged(analyzer)
    judging = asyncio.create_task(judged.judge(asked(*"abcdefghijklmnopqrstuvwxyz")))
    for answered in range(13):
        await settled()
        assert analyzer.under_way == min(most, 13 - answered)
        analyzer.going_on.release()
    answers = await judging
    assert sorted(each.number for each in answers) == list(range(26))


async def test_a_cancellation_leaves_no_task_behind(no_task_left: Callable[[], None]) -> None:
    analyzer = FakeAnalyzer("a", batch_size=1, paid=True)
    analyzer.going_on = asyncio.Semaphore(0)
    judging = asyncio.create_task(Judged(analyzer).judge(asked("a", "b", "c")))
    await settled()
    assert analyzer.under_way == 3
    judging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judging
    no_task_left()
    assert analyzer.under_way == 0


async def test_who_stops_listening_leaves_no_task_behind(no_task_left: Callable[[], None]) -> None:
    analyzer = FakeAnalyzer("a", batch_size=1, paid=True)
    analyzer.going_on = asyncio.Semaphore(1)
    judging = Judged(analyzer).panel.judge(asked("a", "b", "c"), {}, 60)
    assert len((await anext(judging)).found) == 1
    await judging.aclose()
    no_task_left()


async def test_in_a_hurry_what_is_not_answered_is_put_off_and_later_asked_again(
    no_task_left: Callable[[], None],
) -> None:
    quick = FakeAnalyzer("quick")
    never = FakeAnalyzer("never", batch_size=2, paid=True)
    never.going_on = asyncio.Semaphore(1)
    judged = Judged(quick, never)
    judging = asyncio.create_task(judged.judge(asked(*"abcde")))
    await settled()
    judged.panel.hurry()
    assert judged.panel.hurries
    answers = await judging
    no_task_left()
    assert all(each.answer for each in answers if each.analyzer is quick)
    of_never = {each.number: each.answer for each in answers if each.analyzer is never}
    assert len(of_never) == 5
    assert sum(answer is not None for answer in of_never.values()) == 2

    judged.answered.clear()
    assert all(each.answer is None for each in await judged.judge(asked("a", "b")))
    judged.panel.go_on()
    never.going_on = None
    judged.answered.clear()
    assert all(each.answer for each in await judged.judge(asked("a", "b")))


async def test_a_hurry_does_not_wait_for_one_that_is_away(
    no_task_left: Callable[[], None],
) -> None:
    away = FakeAnalyzer("a", raising=[UnavailableError("away", LONG_SECONDS)] * 9)
    judged = Judged(away)
    judging = asyncio.create_task(judged.judge(asked("a")))
    await settled()
    assert away.asked == [["a"]]
    judged.panel.hurry()
    (answer,) = await judging
    assert answer.answer is None
    no_task_left()


async def test_a_fallback_that_is_an_analyzer_too_is_closed_once() -> None:
    analyzer, fallback = FakeAnalyzer("a"), FakeAnalyzer("b")
    await Judged(analyzer, fallback=analyzer).panel.close()
    await Judged(fallback=fallback).panel.close()
    assert (analyzer.closed, fallback.closed) == (1, 1)
