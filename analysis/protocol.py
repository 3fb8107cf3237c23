"""What an analyzer is: a batch of subjects in, and for each its findings, or why there are none.

Anyone can add one: a package names a factory under the entry point group `openbat.analyzers`.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Raw, Struct

from schemas.analyses import Finding
from schemas.analysis import DEFAULT_FLAGS, DEFAULT_INTENTS, Kind
from schemas.records import Turn

__all__ = [
    "ENTRY_POINTS",
    "Analyzer",
    "AnalyzerError",
    "Answer",
    "Checked",
    "Finding",
    "OverBudgetError",
    "Subject",
    "SubjectError",
    "Turn",
    "UnavailableError",
    "Vocabulary",
    "family",
]

ENTRY_POINTS = "openbat.analyzers"


def family(name: str) -> str:
    """Return what stands before the colon of an analyzer's name: `llm` of `llm:model`."""
    return name.partition(":")[0]


class Vocabulary(Struct, frozen=True, gc=False, cache_hash=True):
    """The words of a chatbot: an intent or a flag that is not among them is not said."""

    intents: tuple[str, ...] = DEFAULT_INTENTS
    flags: tuple[str, ...] = DEFAULT_FLAGS


class Subject(Struct, frozen=True, gc=False):
    """What is to be judged: a message, or where that is None the conversation as a whole.

    Attributes:
        chatbot_id: whose it is; budgets and vocabularies are a chatbot's.
        message: of `user` or `assistant`; None for a conversation that has become quiet.
        before: what was said before it, the oldest first, the newest dozen at most; long messages
            are cut. For a conversation, its newest messages.
        kinds: what is asked; never empty, and only what fits the subject.
        vocabulary: the chatbot's.

    """

    chatbot_id: bytes
    message: Turn | None
    before: tuple[Turn, ...]
    kinds: frozenset[Kind]
    vocabulary: Vocabulary = Vocabulary()


class AnalyzerError(Exception):
    """The root of what analyzers raise, or return in a subject's place."""


class SubjectError(AnalyzerError):
    """Returned for a subject that can never be analysed; it goes to dead-letters."""


class UnavailableError(AnalyzerError):
    """Returned for a subject that can't be analysed now, and may be later; or raised for all.

    Attributes:
        retry_after_seconds: the earliest moment that makes sense to try again.

    """

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class OverBudgetError(AnalyzerError):
    """Returned for a subject whose chatbot has spent what it may spend today."""


Checked = tuple[Finding, ...] | SubjectError | OverBudgetError | UnavailableError
"""A finding for each kind that was asked, or why there is none."""
Answer = Checked | Raw
"""The same, or findings as MessagePack, from an analyzer that was handed them by another process:
they are decoded once, by who checks them."""


class Analyzer(Protocol):
    """Judges subjects. Keeps nothing of one for the next: any order, any batch, any worker.

    Attributes:
        name: up to 64 characters; with `version`, what results are keyed by.
        version: changes whenever results may change: of code, lexicon, model or prompt.
        kinds: what it can be asked.
        paid: whether a repeat costs money. What it found is then kept until the conversation is
            quiet, so that a record which is read again is not paid for again.
        batch_size: how many subjects it wants at once.

    """

    name: str
    version: str
    kinds: frozenset[Kind]
    paid: bool
    batch_size: int

    async def analyze(self, subjects: Sequence[Subject]) -> Sequence[Answer]:
        """Return an answer for each subject, in their order.

        A worker that starts asks about none first: what takes its time to load is loaded then.

        Raises:
            UnavailableError: it can't work now: as if it were returned for each.

        Whatever else it raises is a defect: the caller asks again with each subject alone, and
        those that raise again go to dead-letters.

        """

    async def close(self) -> None:
        """Give back what it holds; called once, at the end."""
