"""What the offline analyzer and its process say to each other, a frame each way per batch. Pure.

4 bytes, big-endian: the length of what follows | the batch as MessagePack

Of subjects goes what rules read: what was said before a message where one of its kinds looks at it,
and once for all that share them, the kinds and the words that are asked for.
"""

from collections.abc import Sequence

import msgspec

from analysis.protocol import Answer, Checked, Subject, SubjectError, Turn, Vocabulary
from schemas.analysis import Kind

LENGTH_BYTES = 4

_LOOKING_BACK = frozenset[Kind]({"behaviour", "resolution"})

_Wanted = tuple[frozenset[Kind], Vocabulary]
_Row = tuple[int, Turn | None, tuple[Turn, ...]]
"""Which of the batch's `_Wanted`, the message, what was said before it."""

_encode = msgspec.msgpack.Encoder().encode
_subjects = msgspec.msgpack.Decoder(tuple[list[_Wanted], list[_Row]])
_answers = msgspec.msgpack.Decoder(tuple[list[msgspec.Raw], dict[int, str]])
"""The findings of each subject, none where it has none; and by its number, why."""


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


def answers_frame(answers: Sequence[Checked]) -> bytes:
    failed = {at: str(each) for at, each in enumerate(answers) if isinstance(each, SubjectError)}
    found = [() if isinstance(each, SubjectError) else each for each in answers]
    return _framed((found, failed))


def read_answers(body: bytes) -> list[Answer]:
    """Return findings as they came, or a SubjectError, for each subject."""
    found, failed = _answers.decode(body)
    answers: list[Answer] = [*found]
    for at, why in failed.items():
        answers[at] = SubjectError(why)
    return answers


def _framed(batch: object) -> bytes:
    body = _encode(batch)
    return len(body).to_bytes(LENGTH_BYTES) + body
