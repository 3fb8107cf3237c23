"""What the offline analyzer and its process say to each other, a frame each way per batch. Pure.

4 bytes, big-endian: the length of what follows | the batch as MessagePack
"""

from collections.abc import Sequence

import msgspec

from analysis.protocol import Answer, Finding, Subject, SubjectError

LENGTH_BYTES = 4

_encode = msgspec.msgpack.Encoder().encode
_subjects = msgspec.msgpack.Decoder(list[Subject])
_answers = msgspec.msgpack.Decoder(list[tuple[Finding, ...] | str])


def length_of(head: bytes) -> int:
    """Return how many bytes follow a frame's first LENGTH_BYTES."""
    return int.from_bytes(head)


def subjects_frame(subjects: Sequence[Subject]) -> bytes:
    return _framed(subjects)


def read_subjects(body: bytes) -> list[Subject]:
    return _subjects.decode(body)


def answers_frame(answers: Sequence[Answer]) -> bytes:
    return _framed([each if isinstance(each, tuple) else str(each) for each in answers])


def read_answers(body: bytes) -> list[Answer]:
    """Return findings, or a SubjectError, for each subject."""
    found = _answers.decode(body)
    return [SubjectError(each) if isinstance(each, str) else each for each in found]


def _framed(batch: object) -> bytes:
    body = _encode(batch)
    return len(body).to_bytes(LENGTH_BYTES) + body
