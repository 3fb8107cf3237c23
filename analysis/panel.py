"""Asks all analyzers about many subjects, and takes no analyzer's word without a look at it."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
import structlog

from analysis.protocol import (
    Analyzer,
    Answer,
    Checked,
    Finding,
    OverBudgetError,
    Subject,
    SubjectError,
    UnavailableError,
    Vocabulary,
    family,
)
from schemas.analysis import (
    BEHAVIOURS,
    MAX_TOPICS,
    NO_INTENT,
    RESOLUTIONS,
    SENTIMENTS,
    Kind,
)
from schemas.dead_letters import detail_of

log = structlog.get_logger()

LONGEST_WAIT_SECONDS = 30.0
HURRIED_SECONDS = 1.0
"""How long what is asked already may still take in a hurry."""
PAID_AT_ONCE = 32
"""Batches of a paid analyzer that one caller has under way; the analyzer has a limit of its own."""

Outcome = Literal["analysed", "failed", "over_budget", "fallback"]
Count = Callable[[str, Outcome, int], None]
"""Told the analyzer's name, what became of subjects, and of how many."""


class Wanted(NamedTuple):
    """Who is to be asked about a subject.

    Attributes:
        analyzers: names or families of those that are asked; empty for all.
        known: those whose findings are there already.

    """

    analyzers: Collection[str] = ()
    known: Collection[tuple[str, str]] = ()


Settled = tuple[Finding, ...] | SubjectError | None
"""What became of a subject: findings, or why there will never be any; None: it is put off."""


class Answers(NamedTuple):
    """One analyzer's answers, each with its subject's number among those asked about."""

    analyzer: Analyzer
    found: list[tuple[int, Settled]]


class Panel:
    """The analyzers of a worker.

    Args:
        analyzers: each is asked about every subject that it has something to say of.
        fallback: asked in the place of one that is away or over its budget, where given; it is
            none that can be away itself.
        count: told what became of subjects.

    """

    def __init__(
        self, analyzers: Sequence[Analyzer], fallback: Analyzer | None, count: Count
    ) -> None:
        self.analyzers = tuple(analyzers)
        self._fallback = fallback
        self._count = count
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Put off all that is not answered yet, until `go_on` is called."""
        self._hurry.set()

    def go_on(self) -> None:
        self._hurry.clear()

    @property
    def hurries(self) -> bool:
        return self._hurry.is_set()

    def has_any(self, names: Collection[str]) -> bool:
        """Whether one of these names or families is an analyzer of this panel."""
        return any(_is_named(analyzer, names) for analyzer in self.analyzers)

    async def warm_up(self) -> None:
        """Have analyzers load what they need, before it counts how long they take."""
        for analyzer in self.analyzers:
            await self._answers(analyzer, [])

    async def judge(
        self, subjects: Sequence[Subject], wanted: Mapping[int, Wanted], patience_seconds: float
    ) -> AsyncGenerator[Answers]:
        """Yield answers, a batch of one analyzer's at a time.

        Waits so long for an analyzer that is away, where nobody takes its place; what is not
        answered then, or when it is told to hurry, is put off. Subjects over budget have no answer.

        Args:
            subjects: what is to be judged.
            wanted: who is asked about subjects that not all are asked about, by their numbers.
            patience_seconds: how long to wait.

        """
        loop = asyncio.get_running_loop()
        for analyzer in self.analyzers:
            kinds = analyzer.kinds
            left_out = {number for number, who in wanted.items() if _is_left_out(analyzer, who)}
            asked = [
                number
                for number, subject in enumerate(subjects)
                if number not in left_out and not subject.kinds.isdisjoint(kinds)
            ]
            batches = (
                asked[start : start + analyzer.batch_size]
                for start in range(0, len(asked), analyzer.batch_size)
            )
            until = loop.time() + patience_seconds
            async with aclosing(self._ask_all(analyzer, subjects, batches, until)) as answering:
                async for answers in answering:
                    yield answers

    async def close(self) -> None:
        others = [self._fallback] if self._fallback else []
        for analyzer in {id(each): each for each in [*self.analyzers, *others]}.values():
            await analyzer.close()

    async def _ask_all(
        self,
        analyzer: Analyzer,
        subjects: Sequence[Subject],
        batches: Iterator[list[int]],
        until: float,
    ) -> AsyncGenerator[Answers]:
        """Ask about batches, of a paid analyzer several at once: it waits for others then."""
        loop = asyncio.get_running_loop()
        under_way: dict[asyncio.Task[_Attempt], list[int]] = {}
        at_once = PAID_AT_ONCE if analyzer.paid else 1
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            while not self.hurries:
                while len(under_way) < at_once and (batch := next(batches, None)) is not None:
                    under_way[asyncio.create_task(self._ask(analyzer, subjects, batch))] = batch
                if not under_way:
                    return
                done, _ = await asyncio.wait(
                    {*under_way, hurry}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in under_way.keys() & done:
                    del under_way[task]
                    answered, left, number, wait_seconds = task.result()
                    if left and loop.time() + wait_seconds > until:
                        # The others would be told the same.
                        yield _put_off(analyzer, left, *batches)
                    elif left:
                        again = self._ask(analyzer, subjects, left, number, wait_seconds)
                        under_way[asyncio.create_task(again)] = left
                    for answers in answered:
                        yield answers
            # What is paid for already may be about to come.
            if under_way:
                await asyncio.wait(under_way, timeout=HURRIED_SECONDS)
            for task, batch in under_way.items():
                if task.done():
                    for answers in task.result().answered:
                        yield answers
                    yield _put_off(analyzer, task.result().left)
                else:
                    yield _put_off(analyzer, batch)
            yield _put_off(analyzer, *batches)
        finally:
            unfinished = (*under_way, hurry)
            for each in unfinished:
                each.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _ask(
        self,
        analyzer: Analyzer,
        subjects: Sequence[Subject],
        batch: list[int],
        number: int = 0,
        wait_seconds: float = 0.0,
    ) -> "_Attempt":
        """Ask once, after a wait; with a fallback, that one too about what is not answered."""
        await asyncio.sleep(wait_seconds)
        of_batch = [subjects[index] for index in batch]
        answers = checked(analyzer, of_batch, await self._answers(analyzer, of_batch))
        found: list[tuple[int, Settled]] = []
        away, over_budget, failed = [], [], 0
        reason = UnavailableError("")
        for index, answer in zip(batch, answers, strict=True):
            if isinstance(answer, UnavailableError):
                away.append(index)
                reason = answer
            elif isinstance(answer, OverBudgetError):
                over_budget.append(index)
            else:
                found.append((index, answer))
                failed += isinstance(answer, SubjectError)
        answered = [Answers(analyzer, found)]
        self._count(analyzer.name, "analysed", len(found) - failed)
        self._count(analyzer.name, "failed", failed)
        if self._fallback is not None and self._fallback is not analyzer:
            self._count(analyzer.name, "fallback", len(away) + len(over_budget))
            if away or over_budget:
                stood_in = await self._ask(self._fallback, subjects, away + over_budget, number)
                # Where that one is away too, both are asked again.
                return stood_in._replace(answered=answered + stood_in.answered)
            return _Attempt(answered)
        self._count(analyzer.name, "over_budget", len(over_budget))
        if not away:
            return _Attempt(answered)
        wait_seconds = _wait_seconds(number, reason.retry_after_seconds)
        log.warning(
            "analyzer is away; asking again", analyzer=analyzer.name, subjects=len(away),
            attempt=number + 1, wait_seconds=round(wait_seconds, 1), error=detail_of(reason),
        )  # fmt: skip
        return _Attempt(answered, away, number + 1, wait_seconds)

    async def _answers(self, analyzer: Analyzer, subjects: Sequence[Subject]) -> Sequence[Answer]:
        """Ask about all at once, or where the analyzer breaks on them, about each alone."""
        try:
            answers = list(await analyzer.analyze(subjects))
        except UnavailableError as error:
            return [error] * len(subjects)
        except Exception as error:  # noqa: BLE001 - a defect of its own, or of a subject
            if len(subjects) > 1:
                return [
                    answer
                    for subject in subjects
                    for answer in await self._answers(analyzer, [subject])
                ]
            log.error("analyzer broke", analyzer=analyzer.name, error=detail_of(error))
            return [SubjectError(f"{analyzer.name} raised {type(error).__name__}")]
        if len(answers) != len(subjects):
            return [SubjectError(f"{analyzer.name} answered another number")] * len(subjects)
        return answers


def _put_off(analyzer: Analyzer, *batches: list[int]) -> Answers:
    return Answers(analyzer, [(number, None) for batch in batches for number in batch])


_ERRORS = (SubjectError, OverBudgetError, UnavailableError)
_encode = msgspec.msgpack.Encoder().encode
_findings = msgspec.msgpack.Decoder(list[tuple[Finding, ...]])


class _Attempt(NamedTuple):
    """What one attempt brought: answers, and what to ask again, for the how manieth time, when."""

    answered: list[Answers]
    left: list[int] = []  # noqa: RUF012 - never changed
    number: int = 0
    wait_seconds: float = 0.0


def _wait_seconds(number: int, asked_for_seconds: float) -> float:
    """Return how long to wait before the next attempt: jittered, longer each time."""
    backoff = random.uniform(0, min(LONGEST_WAIT_SECONDS, 0.5 * 2 ** min(number, 10)))  # noqa: S311
    return max(backoff, min(asked_for_seconds, LONGEST_WAIT_SECONDS))


def _is_named(analyzer: Analyzer, names: Collection[str]) -> bool:
    return analyzer.name in names or family(analyzer.name) in names


def _is_left_out(analyzer: Analyzer, wanted: Wanted) -> bool:
    if wanted.analyzers and not _is_named(analyzer, wanted.analyzers):
        return True
    return (analyzer.name, analyzer.version) in wanted.known


def checked(
    analyzer: Analyzer, subjects: Sequence[Subject], answers: Sequence[Answer]
) -> list[Checked]:
    """Return the answers decoded, with a SubjectError for each that is none to what was asked."""
    told = [answer for answer in answers if not isinstance(answer, _ERRORS)]
    try:
        # Nobody has looked at types and lengths so far: a number of NumPy's, say, can't be sent.
        findings = iter(_findings.decode(_encode(told)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        if len(subjects) == 1:
            return [SubjectError(f"{analyzer.name} answered with what is no finding")]
        each_alone = zip(subjects, answers, strict=True)
        return [checked(analyzer, [subject], [answer])[0] for subject, answer in each_alone]
    return [
        answer if isinstance(answer, _ERRORS) else _sound(analyzer, subject, next(findings))
        for subject, answer in zip(subjects, answers, strict=True)
    ]


def _sound(
    analyzer: Analyzer, subject: Subject, findings: tuple[Finding, ...]
) -> tuple[Finding, ...] | SubjectError:
    words = subject.vocabulary
    for finding in findings:
        kind, label, labels = finding.kind, finding.label, finding.labels
        if kind == "sentiment":
            fits = label in SENTIMENTS and not labels and finding.score is not None
        elif finding.score is not None:
            fits = False
        elif kind == "topics":
            fits = not label and len(labels) <= MAX_TOPICS and all(labels)
        elif kind == "flags":
            fits = not label and (not labels or _are_flags(labels, words))
        elif kind == "intent":
            fits = not labels and (label in words.intents or label == NO_INTENT)
        else:
            fits = not labels and label in _LABELS[kind]
        if not fits:
            return SubjectError(f"{analyzer.name} said of {kind} what can't be said")
    said = tuple([finding.kind for finding in findings])
    if not _is_each_once(said, subject.kinds, analyzer.kinds):
        return SubjectError(f"{analyzer.name} did not answer each kind once")
    return findings


def _are_flags(labels: Sequence[str], words: Vocabulary) -> bool:
    said = set(labels)
    return len(said) == len(labels) and said <= set(words.flags)


@lru_cache(maxsize=1_000)
def _is_each_once(
    said: tuple[Kind, ...], asked: frozenset[Kind], answered: frozenset[Kind]
) -> bool:
    """Tell whether an analyzer that answers these kinds said each that was asked, once."""
    wanted = asked & answered
    return len(said) == len(wanted) and wanted == set(said)


_LABELS: dict[Kind, tuple[str, ...]] = {"behaviour": BEHAVIOURS, "resolution": RESOLUTIONS}
