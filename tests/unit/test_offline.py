"""The offline analyzers: each kind's rules, any text, bounded time, and the batch as a whole."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.offline import OfflineAnalyzer, analyzer, judging
from analysis.offline.behaviour import behaviour_of
from analysis.offline.cues import Cues, expand
from analysis.offline.flags import flags_of
from analysis.offline.intent import intent_of
from analysis.offline.judging import judge, judge_all
from analysis.offline.personal import has_personal_data, is_card, is_iban
from analysis.offline.resolution import resolution_of
from analysis.offline.sentiment import label_of, score_of
from analysis.offline.topics import singular, topics_of
from analysis.offline.words import MAX_CHARACTERS, is_english, stem, words
from analysis.panel import checked
from analysis.protocol import (
    Analyzer,
    Checked,
    Finding,
    Subject,
    SubjectError,
    Turn,
    UnavailableError,
    Vocabulary,
)
from schemas.analysis import (
    BEHAVIOURS,
    DEFAULT_FLAGS,
    DEFAULT_INTENTS,
    KINDS,
    MAX_LABEL_CHARACTERS,
    MAX_TOPICS,
    MESSAGE_KINDS,
    NO_INTENT,
    RESOLUTIONS,
    SENTIMENTS,
    Kind,
)
from schemas.capture import Role

ALL = frozenset(KINDS)
patient = settings(deadline=None)
"""A busy machine is no failure; `HOSTILE` bounds the time, of the processor."""


def turn(content: str, role: Role = "user", number: int = 0) -> Turn:
    return Turn(f"m{number}", role, content, number)


def turns(*contents: str) -> list[Turn]:
    """Return what a user and an assistant say in turn, the user first."""
    return [
        turn(content, "assistant" if number % 2 else "user", number)
        for number, content in enumerate(contents)
    ]


def subject(content: str, kinds: frozenset[str] = ALL, before: tuple[Turn, ...] = ()) -> Subject:
    asked = frozenset(kind for kind in KINDS if kind in kinds)
    return Subject(b"\x01" * 16, turn(content), before, asked)


def findings(content: str) -> dict[str, Finding]:
    answer = judge(subject(content, before=tuple(turns("hello", content))))
    assert isinstance(answer, tuple)
    return {finding.kind: finding for finding in answer}


# Words and cues


def test_words_are_lower_case_and_have_no_apostrophes() -> None:
    assert words("I don\u2019t like Ann's PLAN_B, ok?") == [
        "i", "dont", "like", "anns", "plan", "b", "ok",
    ]  # fmt: skip


def test_a_pattern_is_every_phrase_of_its_slots() -> None:
    assert set(expand("talk|speak to a|the? human")) == {
        ("talk", "to", "human"), ("talk", "to", "a", "human"), ("talk", "to", "the", "human"),
        ("speak", "to", "human"), ("speak", "to", "a", "human"), ("speak", "to", "the", "human"),
    }  # fmt: skip


def test_the_longest_phrase_counts_alone() -> None:
    cues = Cues({"one": "idiot", "two": "not idiot proof", "ignored": "im an idiot"})
    said = words("You idiot, not idiot-proof; I'm an idiot, not idiot")
    assert cues.found(said) == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("where is my order", True),
        ("hotel", True),
        ("", True),
        ("\U0001f600", True),
        ("ich möchte bitte ein Hotel buchen", False),
        ("no quiero este plan", False),
        ("我要退款", False),
        ("где мой заказ", False),
    ],
)
def test_what_is_english(text: str, expected: bool) -> None:
    assert is_english(words(text)) is expected


def test_stems_are_the_same_from_many_threads() -> None:
    asked = [f"reservation{letter}s" for letter in "abcdefghij"] * 20
    expected = [stem(word) for word in asked]
    stem.cache_clear()
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append([stem(word) for word in asked]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


# Sentiment


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("This is great, thank you so much!", "positive"),
        ("This is terrible. I hate it.", "negative"),
        ("That is not good at all.", "negative"),
        ("I would like to book a table, please.", "neutral"),
        ("Can you help me cancel it?", "neutral"),
        ("No, thank you.", "positive"),
        ("Nope thanks", "positive"),
        ("No good.", "negative"),
        ("\U0001f62d", "negative"),
        ("die Rechnung ist da", "neutral"),
        ("", "neutral"),
    ],
)
def test_sentiment(text: str, label: str) -> None:
    assert label_of(score_of(text)) == label


def test_the_score_is_graded() -> None:
    scores = [
        score_of(f"The service was {word}.") for word in ("horrific", "poor", "good", "superb")
    ]
    assert scores == sorted(scores)
    assert len(set(scores)) == 4


# Intent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I want to cancel my order", "cancellation"),
        ("I'm looking for an Italian restaurant", "search"),
        ("I'd like to buy two tickets", "purchase"),
        ("Please reserve a table for six", "booking"),
        ("I forgot my password", "account"),
        ("The app keeps crashing", "problem"),
        ("This is unacceptable, the worst service ever", "complaint"),
        ("You should add a dark mode", "feedback"),
        ("What is the address?", "question"),
        ("What's the phone number? Thanks!", "question"),
        ("Hi there", "smalltalk"),
        ("No problem, thanks.", "smalltalk"),
        ("That day doesn't work for me.", NO_INTENT),
        ("In San Jose", NO_INTENT),
        ("", NO_INTENT),
        ("Ich möchte kündigen", NO_INTENT),
    ],
)
def test_a_default_intent(text: str, expected: str) -> None:
    assert intent_of(text, DEFAULT_INTENTS) == expected


OWN = ("cancel subscription", "cancel order", "Refund", "退款", "smalltalk")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I cancelled my subscriptions", "cancel subscription"),
        ("my orders should have been canceled", "cancel order"),
        ("I am being refunded, am I?", "Refund"),
        ("我要退款", "退款"),
        ("about my order", "cancel order"),
        ("cancelling", NO_INTENT),
        ("hello", "smalltalk"),
        ("What is the address?", NO_INTENT),
    ],
)
def test_an_intent_of_a_chatbots_own(text: str, expected: str) -> None:
    assert intent_of(text, OWN) == expected


def test_an_own_intent_comes_before_the_default_ones() -> None:
    assert intent_of("cancel my subscription", (*DEFAULT_INTENTS, "cancel subscription")) == (
        "cancel subscription"
    )


# Topics


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I need a hotel in Boston.", ("hotel", "boston")),
        ("Are there any hotels?", ("hotel",)),
        ("My credit card was declined, is the credit card blocked?", ("credit card",)),
        ("Show me flights to New York", ("new york", "flight")),
        ("Yes, please.", ()),
        ("12 34", ()),
        ("ich möchte ein Hotel buchen", ()),
    ],
)
def test_topics(text: str, expected: tuple[str, ...]) -> None:
    assert topics_of(text)[: len(expected) or 1] == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [("hotels", "hotel"), ("cities", "city"), ("addresses", "address"), ("address", "address"),
     ("bus", "bus"), ("movies", "movie"), ("gas", "gas"), ("boxes", "box")],
)  # fmt: skip
def test_singular(word: str, expected: str) -> None:
    assert singular(word) == expected


# Flags


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Let me talk to a real person", ("asks-for-human",)),
        ("you useless bot, get me a manager", ("asks-for-human", "abuse")),
        ("I'm an idiot, I forgot my password", ()),
        ("Close my account, I'm switching to another provider", ("churn-risk",)),
        ("cancel my booking", ()),
        ("write to ann@example.org", ("personal-data",)),
        ("", ()),
    ],
)
def test_default_flags(text: str, expected: tuple[str, ...]) -> None:
    assert flags_of(text, DEFAULT_FLAGS) == expected


def test_flags_keep_to_the_vocabulary_and_its_order() -> None:
    text = "you idiot bot, I want a refund, the prices are too high"
    assert flags_of(text, ("wants refund", "mentions-price", "price", "abuse", "legal threat")) == (
        "wants refund", "price", "abuse",
    )  # fmt: skip
    assert flags_of(text, ()) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann.b+c@mail.example.co.uk", True),
        ("@ann said hello @ home", False),
        ("call +49 170 1234567", True),
        ("it is 408-971-8523.", True),
        ("(408) 971-8523", True),
        ("my mobile is 4089718523", True),
        ("order 4089718523", False),
        ("on 2019-03-08 at 11:30", False),
        ("it costs 1,234,567.00", False),
        ("4111 1111 1111 1111", True),
        ("4111 1111 1111 1112", False),
        ("3782 822463 10005", True),
        ("DE89 3704 0044 0532 0130 00 is it", True),
        ("gb82west12345698765432", True),
        ("DE89 3704 0044 0532 0130 01", False),
        ("XX82WEST12345698765432", False),
    ],
)
def test_personal_data(text: str, expected: bool) -> None:
    assert has_personal_data(text) is expected


@patient
@given(st.text("0123456789", min_size=12, max_size=18), st.integers(0, 11), st.integers(1, 9))
def test_a_card_has_one_check_digit_and_no_wrong_digit(digits: str, at: int, by: int) -> None:
    valid = [digits + last for last in "0123456789" if is_card(digits + last)]
    assert len(valid) == 1
    wrong = valid[0][:at] + str((int(valid[0][at]) + by) % 10) + valid[0][at + 1 :]
    assert not is_card(wrong)


@patient
@given(st.integers(0, 21), st.integers(1, 9))
def test_an_iban_has_no_wrong_digit(at: int, by: int) -> None:
    valid = "DE89370400440532013000"
    assert is_iban(valid)
    if valid[at].isdigit():
        wrong = valid[:at] + str((int(valid[at]) + by) % 10) + valid[at + 1 :]
        assert not is_iban(wrong)


# Behaviour

ASKED = turns("What is the cancellation fee for my ticket?")


@pytest.mark.parametrize(
    ("text", "before", "expected"),
    [
        ("The fee is ten dollars.", ASKED, "helpful"),
        ("Which city are you travelling to?", ASKED, "asking"),
        ("Please confirm: two seats, today.", ASKED, "asking"),
        ("It is booked. Is there anything else I can help you with?", ASKED, "helpful"),
        ("How about Bird Dog in Palo Alto?", ASKED, "helpful"),
        ("I'm sorry, I can't help with that.", ASKED, "refusing"),
        ("I am able to help with that.", ASKED, "helpful"),
        ("Sorry, sorry! My apologies.", ASKED, "over-apologizing"),
        ("Great question! Please visit our website.", ASKED, "dodging"),
        ("The fee is on our website: visit our website.", ASKED, "helpful"),
        ("Great question! Please visit our website.", turns("Hello."), "helpful"),
        ("The bus leaves at nine from the station.",
         turns("When?", "The bus leaves at nine from the station!", "When?"), "repeating"),
        ("The bus leaves at ten from the station.",
         turns("When?", "The bus leaves at nine from the station!", "When?"), "helpful"),
        ("Have a nice day", turns("Bye", "Have a nice day", "Bye"), "helpful"),
        ("Sorry about that.", turns("a", "Sorry.", "b", "I apologize.", "c"), "over-apologizing"),
        ("", [], "helpful"),
    ],
)  # fmt: skip
def test_behaviour(text: str, before: list[Turn], expected: str) -> None:
    assert behaviour_of(text, before)[0] == expected


# Resolution


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ((), "fully"),
        (("Where is it?", "In Main Street.", "Thanks, that's all.", "Bye!"), "fully"),
        (("Where is it?", "In Main Street.", "Thanks!"), "fully"),
        (("Where is it?", "In Main Street."), "partially"),
        (("Where is it?", "I can't help with that.", "Ok, thanks."), "partially"),
        (("Where is my red parcel?", "Soon.", "Where is my red parcel?", "Here.", "Thanks, bye"),
         "partially"),
        (("Where is it?",), "unresolved"),
        (("Book a table", "For how many people?"), "unresolved"),
        (("It is broken", "Restart it.", "It still doesn't work"), "unresolved"),
        (("It is broken", "Restart it.", "Thanks for nothing", "Bye!"), "unresolved"),
        (("Hi", "Hello!", "Let me talk to a human", "I am one of a kind."), "unresolved"),
    ],
)  # fmt: skip
def test_resolution(contents: tuple[str, ...], expected: str) -> None:
    label, reasoning = resolution_of(turns(*contents))
    assert label == expected
    assert reasoning


# Any text, and time


@patient
@given(st.text(max_size=300))
def test_any_text_has_an_answer_of_each_kind(text: str) -> None:
    found = findings(text)
    assert list(found) == list(KINDS)
    score = found["sentiment"].score
    assert score is not None
    assert -1 <= score <= 1
    assert found["sentiment"].label in SENTIMENTS
    assert found["intent"].label in {*DEFAULT_INTENTS, NO_INTENT}
    assert len(found["topics"].labels) <= MAX_TOPICS
    assert all(0 < len(topic) <= MAX_LABEL_CHARACTERS for topic in found["topics"].labels)
    assert all(topic == topic.lower() for topic in found["topics"].labels)
    assert set(found["flags"].labels) <= set(DEFAULT_FLAGS)
    assert found["behaviour"].label in BEHAVIOURS
    assert found["resolution"].label in RESOLUTIONS


@patient
@given(st.text(max_size=100), st.lists(st.text(max_size=30), max_size=5))
def test_a_vocabulary_of_any_words(text: str, labels: list[str]) -> None:
    assert intent_of(text, tuple(labels)) in {*labels, NO_INTENT}
    found = flags_of(text, tuple(labels))
    assert [label for label in labels if label in found] == list(found)


def test_what_comes_after_the_bound_changes_nothing() -> None:
    start = ("the hotel was clean. " * 300)[:MAX_CHARACTERS]
    assert findings(start) == findings(start + " I hate you, ann@example.org, cancel it!")


HOSTILE = {
    "one letter": "a" * 1_000_000,
    "digits": "1" * 1_000_000,
    "spaced digits": "1 " * 500_000,
    "digits and dashes": "1-" * 500_000,
    "ats": "a@" * 500_000,
    "address": "a@" + "a." * 500_000,
    "accounts": "DE89" * 250_000,
    "negations": "not good " * 100_000,
    "emoji": "\U0001f600" * 250_000,
    "marks": "!?" * 500_000,
    "spaces": "no " + " " * 1_000_000,
    "lines": "\n" * 1_000_000,
    "new words": " ".join(f"word{chr(97 + n % 26)}{n}" for n in range(100_000)),
    "cues": "talk to a " * 100_000,
    "combining": "e\u0301" * 500_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_takes_no_longer_than_what_is_judged_of_it(text: str) -> None:
    began = time.process_time()
    findings(text)
    assert time.process_time() - began < 2


# The batch

WORKER = """
import asyncio

import psutil

from analysis.offline import OfflineAnalyzer

async def work():
    await OfflineAnalyzer().analyze([])
    print(psutil.Process().children()[0].pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(work())
"""


def test_it_is_an_analyzer() -> None:
    found: Analyzer = OfflineAnalyzer()
    assert (found.name, found.kinds, found.paid) == ("offline", ALL, False)
    assert "vader-" in found.version


async def answers_of(offline: OfflineAnalyzer, asked: Sequence[Subject]) -> list[Checked]:
    return checked(offline, asked, await offline.analyze(asked))


@pytest.fixture
async def offline() -> AsyncIterator[OfflineAnalyzer]:
    started = OfflineAnalyzer()
    yield started
    await started.close()


async def test_answers_come_in_order_and_say_what_was_asked(offline: OfflineAnalyzer) -> None:
    batch = [
        subject("This is great!", frozenset({"sentiment"})),
        subject("I need a hotel", MESSAGE_KINDS["user"]),
        Subject(b"\x01" * 16, None, tuple(turns("Hi?")), frozenset({"resolution"})),
    ]
    answers = await answers_of(offline, batch)
    assert answers == [judge(each) for each in batch]
    kinds = [
        [finding.kind for finding in answer] for answer in answers if isinstance(answer, tuple)
    ]
    assert kinds == [["sentiment"], ["sentiment", "intent", "topics", "flags"], ["resolution"]]


async def test_a_chatbots_vocabulary_is_used(offline: OfflineAnalyzer) -> None:
    asked = Subject(
        b"\x01" * 16, turn("refund me, price!"), (), frozenset({"intent", "flags"}),
        Vocabulary(("refund",), ("price",)),
    )  # fmt: skip
    assert await answers_of(offline, [asked]) == [
        (Finding("intent", "refund"), Finding("flags", labels=("price",)))
    ]


async def test_what_can_never_be_judged_is_told_by_the_process(offline: OfflineAnalyzer) -> None:
    kinds: frozenset[Kind] = frozenset({"topics"})
    whole = Subject(b"\x01" * 16, None, (), kinds)
    good, bad = await answers_of(offline, [subject("hotel", kinds), whole])
    assert good == (Finding("topics", labels=("hotel",)),)
    assert isinstance(bad, SubjectError)
    assert str(bad) == "offline topics: ValueError"


async def test_who_gives_up_leaves_no_answer_to_the_next(offline: OfflineAnalyzer) -> None:
    kinds = frozenset({"topics"})
    given_up = asyncio.create_task(offline.analyze([subject("garden", kinds)] * 256))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await answers_of(offline, [subject("hotel", kinds)]) == [
        (Finding("topics", labels=("hotel",)),)
    ]


def judging_process() -> psutil.Process:
    """Return the analyzer's; a stack that other tests use has processes too."""
    (found,) = [
        each for each in psutil.Process().children() if "analysis.offline.process" in each.cmdline()
    ]
    return found


async def test_a_process_that_was_killed_is_away_and_then_another_judges(
    offline: OfflineAnalyzer,
) -> None:
    asked = [subject("hotel", frozenset({"topics"}))]
    expected = [(Finding("topics", labels=("hotel",)),)]
    assert await answers_of(offline, asked) == expected
    child = judging_process()
    child.kill()
    child.wait()
    with pytest.raises(UnavailableError, match="gave no answer"):
        await offline.analyze(asked)
    assert await answers_of(offline, asked) == expected


async def test_a_process_that_stands_still_is_given_up(
    offline: OfflineAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [subject("hotel", frozenset({"topics"}))]
    await offline.analyze(asked)
    child = judging_process()
    child.suspend()
    monkeypatch.setattr(analyzer, "BATCH_SECONDS", 0.2)
    with pytest.raises(UnavailableError, match="TimeoutError"):
        await offline.analyze(asked)
    assert not child.is_running()


def test_its_process_ends_with_the_worker_however_that_ends() -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    with worker:
        child = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    child.wait(10)


def test_a_subject_that_makes_a_rule_raise_takes_nobody_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule: Callable[[Subject], Finding] = judging._JUDGES["topics"]

    def brittle(each: Subject) -> Finding:
        if each.message is not None and "secret" in each.message.content:
            raise ValueError(each.message.content)
        return rule(each)

    monkeypatch.setitem(judging._JUDGES, "topics", brittle)
    kinds = frozenset({"topics"})
    good, bad = judge_all([subject("hotel", kinds), subject("secret", kinds)])
    assert good == (Finding("topics", labels=("hotel",)),)
    assert isinstance(bad, SubjectError)
    assert str(bad) == "offline topics: ValueError"


def test_a_message_kind_asked_of_a_conversation_is_an_error_of_that_subject() -> None:
    answer = judge(Subject(b"\x01" * 16, None, (), frozenset({"intent"})))
    assert isinstance(answer, SubjectError)
