"""A chatbot's own labels, found in a text by the words that they are made of."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from analysis.offline.words import bounded, stems, words


@lru_cache(maxsize=4_096)
def stems_of(label: str) -> frozenset[str]:
    """Return the stems that a label is made of."""
    return stems(words(label))


def is_said(label: str, text: str, said: frozenset[str]) -> bool:
    """Tell whether every word of a label is in a text, in whatever form.

    Takes the text and its stems. A label with other letters than English ones is looked for as it
    is, since not every script sets its words apart.
    """
    own = stems_of(label)
    if own and own <= said:
        return True
    return not label.isascii() and label.casefold() in bounded(text).casefold()


def nearest(labels: Sequence[str], said: frozenset[str]) -> str:
    """Return the label most of whose words are in a text; empty where none is, or two are alike.

    Half of a label's words will do, where no other label has a claim to them.
    """
    shares = {label: len(own & said) / len(own) for label in labels if (own := stems_of(label))}
    best = max(shares.values(), default=0.0)
    if best < 0.5 or Counter(shares.values())[best] > 1:
        return ""
    return next(label for label, share in shares.items() if share == best)
