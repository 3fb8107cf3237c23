"""What a message is about: its key phrases, in a form that adds up over messages.

Candidates are runs of words between stop words and punctuation, as in Rose et al., "Automatic
Keyword Extraction from Individual Documents", 2010 (RAKE). Its score needs long documents; a
message is short, so here the phrase said most often comes first, then the longer, then the earlier.
"""

import re
from collections import Counter

from analysis.offline.words import bounded, is_content, is_english, words
from analysis.protocol import Finding
from schemas.analysis import MAX_LABEL_CHARACTERS, MAX_TOPICS

_MAX_WORDS = 3
_CLAUSE = re.compile(r"[.,;:!?()\[\]{}\"\n\r\t/|<>@#*]")
_NO_PLURAL = ("ss", "us", "is", "as", "news")
_SHORT = 3
_IRREGULAR = {"movies": "movie", "cookies": "cookie", "angeles": "angeles", "series": "series"}
_ATTRIBUTES = frozenset({"new"})
"""Content before another word (`new york`), none alone."""


def singular(word: str) -> str:
    """Return an English noun without its regular plural: `city` of `cities`."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= _SHORT or not word.endswith("s") or word.endswith(_NO_PLURAL):
        return word
    if word.endswith("ies") and len(word) > _SHORT + 1:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def _phrase(run: list[str]) -> str:
    # The noun that an English phrase is about stands at its end, before what was done to it.
    while len(run) > 1 and run[-1].endswith("ed") and not run[-1].endswith("eed"):
        run = run[:-1]
    kept = run[-_MAX_WORDS:]
    return " ".join([*kept[:-1], singular(kept[-1])])


def candidates(text: str) -> list[str]:
    """Return the phrases of a text in their order, as often as they are said."""
    found = []
    for clause in _CLAUSE.split(bounded(text)):
        run: list[str] = []
        for word in [*words(clause), ""]:
            if word and is_content(word):
                run.append(word)
            else:
                if not _ATTRIBUTES.issuperset(run):
                    found.append(_phrase(run))
                run = []
    return [phrase for phrase in found if len(phrase) <= MAX_LABEL_CHARACTERS]


def topics_of(text: str) -> tuple[str, ...]:
    """Return up to three phrases, the first the most important; none where it isn't English."""
    if not is_english(words(text)):
        return ()
    counted = Counter(candidates(text))
    ranked = sorted(counted, key=lambda phrase: (-counted[phrase], -phrase.count(" ")))
    kept: list[str] = []
    for phrase in ranked:
        if not any(set(phrase.split()) <= set(other.split()) for other in kept):
            kept.append(phrase)
        if len(kept) == MAX_TOPICS:
            break
    return tuple(kept)


def topics(text: str) -> Finding:
    """Return the topics of a user's message."""
    return Finding("topics", labels=topics_of(text))
