"""Cue phrases: which labels the words of a text speak for. A walk along a trie, linear in them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product


def expand(pattern: str) -> Iterable[tuple[str, ...]]:
    """Return the phrases of a pattern: `speak|talk to a|the? human` is six.

    A slot's words are set apart by `|`; a slot that ends with `?` may be absent. Words are written
    as `words.words` gives them: lower case, no apostrophes.
    """
    slots = [
        [*slot.removesuffix("?").split("|"), *([""] if slot.endswith("?") else [])]
        for slot in pattern.split()
    ]
    return (tuple(word for word in phrase if word) for phrase in product(*slots))


class _Node:
    """Where phrases that begin alike part; `label` is that of the phrase that ends here."""

    __slots__ = ("below", "label")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.label = ""


class Cues:
    """Labels and the phrases that speak for them, found in a sequence of words.

    At each word the longest phrase counts alone, and what it covers is used up. The label `ignored`
    takes what would mislead: with `idiot` for a label, `im an idiot` under `ignored` is none.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        """Take patterns by label, one a line; a line that ends with `|` goes on in the next."""
        self._root = _Node()
        for label, lines in patterns.items():
            for line in re.sub(r"\|\s+", "|", lines).splitlines():
                for phrase in expand(line):
                    self._add(phrase, label)

    def _add(self, phrase: tuple[str, ...], label: str) -> None:
        node = self._root
        for word in phrase:
            below = node.below.get(word)
            if below is None:
                below = node.below[word] = _Node()
            node = below
        node.label = label

    def found(self, words: Sequence[str]) -> list[str]:
        """Return the label of each phrase found, in their order; `ignored` is left out."""
        labels = []
        at = 0
        while at < len(words):
            label, length = self._longest(words, at)
            if label and label != "ignored":
                labels.append(label)
            at += length
        return labels

    def _longest(self, words: Sequence[str], start: int) -> tuple[str, int]:
        node: _Node | None = self._root
        label, length = "", 1
        for at in range(start, len(words)):
            node = node.below.get(words[at]) if node else None
            if node is None:
                break
            if node.label:
                label, length = node.label, at - start + 1
        return label, length
