"""Reads the model's answer: nothing in it is believed before it is checked."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from analysis.protocol import Finding, Subject, Vocabulary
from schemas.analysis import (
    BEHAVIOURS,
    KINDS,
    MAX_LABEL_CHARACTERS,
    MAX_REASONING_CHARACTERS,
    MAX_TOPICS,
    NO_INTENT,
    RESOLUTIONS,
    SENTIMENTS,
    Kind,
)

Findings = tuple[Finding, ...]


class UnusableError(Exception):
    """What came says nothing about a subject, or nothing that may be believed.

    Its text names the fault in our words: it has no part of the answer, nor of a message.
    """


Readings = dict[str, Findings | UnusableError]


class _Label(Struct, forbid_unknown_fields=True):
    label: str
    reasoning: str = ""


class _Score(_Label, forbid_unknown_fields=True, kw_only=True):
    score: float


class _Labels(Struct, forbid_unknown_fields=True):
    labels: list[str]
    reasoning: str = ""


class _Item(Struct, forbid_unknown_fields=True):
    id: str
    sentiment: _Score | None = None
    intent: _Label | None = None
    topics: _Labels | None = None
    flags: _Labels | None = None
    behaviour: _Label | None = None
    resolution: _Label | None = None


class _Named(Struct):
    id: str


class _Answer(Struct, forbid_unknown_fields=True):
    items: list[msgspec.Raw]


_ANSWER = msgspec.json.Decoder(_Answer)
_NAMED = msgspec.json.Decoder(_Named)
_ITEM = msgspec.json.Decoder(_Item)
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


def read(text: str, subjects: Mapping[str, Subject]) -> Readings:
    """Return for each subject what the answer says of it, or why that is not usable.

    An answer that names an item which was not asked, or one twice, is not believed at all: the
    model has lost track of which item is which.

    Args:
        text: the answer, JSON as `prompt.py` asks for it.
        subjects: by the ids of their items.

    """
    fenced = _FENCED.fullmatch(text)
    try:
        items = _ANSWER.decode(fenced[1] if fenced else text).items
        names = [_NAMED.decode(item).id for item in items]
    except msgspec.DecodeError:
        return dict.fromkeys(subjects, UnusableError("the answer is not the JSON that was asked"))
    if not subjects.keys() >= set(names):
        return dict.fromkeys(subjects, UnusableError("the answer names an item that was not asked"))
    if any(times > 1 for times in Counter(names).values()):
        return dict.fromkeys(subjects, UnusableError("the answer names an item twice"))
    found = dict(zip(names, items, strict=True))
    return {name: _usable(found.get(name), subject) for name, subject in subjects.items()}


def _usable(item: msgspec.Raw | None, subject: Subject) -> Findings | UnusableError:
    if item is None:
        return UnusableError("the answer lacks the item")
    try:
        return _findings(_ITEM.decode(item), subject)
    except msgspec.DecodeError:
        return UnusableError("the item is not of the shape that was asked")
    except UnusableError as error:
        return error


def _findings(item: _Item, subject: Subject) -> Findings:
    judged = {kind: getattr(item, kind) for kind in KINDS if getattr(item, kind) is not None}
    if judged.keys() != subject.kinds:
        raise UnusableError("the item has other kinds than those that were asked")
    return tuple(_FINDING[kind](kind, judged[kind], subject.vocabulary) for kind in judged)


def _reasoning(judged: _Label | _Labels) -> str:
    return judged.reasoning[:MAX_REASONING_CHARACTERS]


def _label_of(
    labels: Callable[[Vocabulary], Sequence[str]],
) -> Callable[[Kind, _Label, Vocabulary], Finding]:
    def finding(kind: Kind, judged: _Label, vocabulary: Vocabulary) -> Finding:
        if judged.label not in labels(vocabulary):
            raise UnusableError(f"unknown {kind}")
        score = judged.score if isinstance(judged, _Score) else None
        if score is not None and not -1 <= score <= 1:
            raise UnusableError("the score is out of range")
        return Finding(kind, judged.label, score=score, reasoning=_reasoning(judged))

    return finding


def _topics(kind: Kind, judged: _Labels, _: Vocabulary) -> Finding:
    topics = dict.fromkeys(" ".join(label.split()) for label in judged.labels)
    if any(not 0 < len(topic) <= MAX_LABEL_CHARACTERS for topic in topics):
        raise UnusableError("a topic is empty or too long")
    # The first are the most important: what is over them may go.
    return Finding(kind, labels=tuple(topics)[:MAX_TOPICS], reasoning=_reasoning(judged))


def _flags(kind: Kind, judged: _Labels, vocabulary: Vocabulary) -> Finding:
    if not set(judged.labels) <= set(vocabulary.flags):
        raise UnusableError("unknown flag")
    raised = tuple(flag for flag in vocabulary.flags if flag in judged.labels)
    return Finding(kind, labels=raised, reasoning=_reasoning(judged))


_FINDING: dict[Kind, Callable[..., Finding]] = {
    "sentiment": _label_of(lambda _: SENTIMENTS),
    "intent": _label_of(lambda vocabulary: (*vocabulary.intents, NO_INTENT)),
    "topics": _topics,
    "flags": _flags,
    "behaviour": _label_of(lambda _: BEHAVIOURS),
    "resolution": _label_of(lambda _: RESOLUTIONS),
}
