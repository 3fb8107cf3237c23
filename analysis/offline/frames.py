"""What the offline analyzer and its process say to each other, a frame each way per batch. Pure.

4 bytes, big-endian: the length of what follows | the batch as MessagePack

Of subjects goes what rules read: what was said before a message where one of its kinds looks at it,
and once for all that share them, the kinds and the words that are asked for.
"""

from collections.abc import Sequence

import msgspec

from analysis.protocol import Answer, Finding, Subject, SubjectError, Turn, Vocabulary
from schemas.analysis import Kind

LENGTH_BYTES = 4

_LOOKING_BACK = frozenset[Kind]({"behaviour", "resolution"})

_Wanted = tuple[frozenset[Kind], Vocabulary]
_Row = tuple[int, Turn | None, tuple[Turn, ...]]
"""Which of the batch's `_Wanted`, the message, what was said before it."""

_encode = msgspec.msgpack.Encoder().encode
_subjects = msgspec.msgpack.Decoder(tuple[list[_Wanted], list[_Row]])
_answers = msgspec.msgpack.Decoder(list[tuple[Finding, ...] | str])


def length_of(head: bytes) -> int:
    """Return how many bytes follow a frame's first LENGTH_BYTES."""
    return int.from_bytes(head)


def subjects_frame(subjects: Sequence[Subject]) -> bytes:
    wanted: dict[_Wanted, tuple[int, bool]] = {}
    rows: list[_Row] = []
    for each in subjects:
        asked = each.kinds, each.vocabulary
        known = wanted.get(asked)
        if known is None:
            known = wanted[asked] = len(wanted), not each.kinds.isdisjoint(_LOOKING_BACK)
        number, looks_back = known
        rows.append((number, each.message, each.before if looks_back else ()))
    return _framed((list(wanted), rows))


def read_subjects(body: bytes) -> list[Subject]:
    """Return subjects of no chatbot."""
    wanted, rows = _subjects.decode(body)
    return [Subject(b"", message, before, *wanted[number]) for number, message, before in rows]


def answers_frame(answers: Sequence[Answer]) -> bytes:
    return _framed([each if isinstance(each, tuple) else str(each) for each in answers])


def read_answers(body: bytes) -> list[Answer]:
    """Return findings, or a SubjectError, for each subject."""
    found = _answers.decode(body)
    return [SubjectError(each) if isinstance(each, str) else each for each in found]


def _framed(batch: object) -> bytes:
    body = _encode(batch)
    return len(body).to_bytes(LENGTH_BYTES) + body
