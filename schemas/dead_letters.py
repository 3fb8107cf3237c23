"""Dead letters: what could not be processed, why, and where it came from.

A letter's value is raw: the record that is at fault, or the part of it. All else is in its headers.
Its key is its source, so that a record which is read again makes the same letter, not a second one,
and a tombstone drops it.
"""

import re
from collections.abc import Iterable
from typing import Literal, cast, get_args

from msgspec import Struct

from schemas.codec import UndecodableError

Reason = Literal[
    "undecodable_record",  # a record of captures in no format that is known
    "undecodable_capture",  # a frame of such a record
    "failed_capture",  # a frame that decodes, and that applying raises for
    "undecodable_output",  # a record of messages, analysis or analyses, or a part of one
    "failed_analysis",  # a message or conversation that an analyzer can never analyse
    "rejected_row",  # a row that ClickHouse never takes
    "other",  # written by another release, for a reason of its own
]
REASONS = cast("tuple[Reason, ...]", get_args(Reason))

WHOLE_RECORD = -1
"""The index of a letter that is a whole record."""

MAX_DETAIL_CHARACTERS = 300

# Errors quote what they are about. What follows a quotation mark may be a message's content, and
# cut off anywhere, so nothing of it is kept but msgspec's path at the end, which holds no names.
_CONTENT = re.compile(r"(?<!\w)['\"].*|Column values.*")
_PATH = re.compile(r" - at `[$.\[\]\d]*`$")


class Source(Struct, frozen=True):
    """Where a letter came from. `index` is that of the part in the record.

    In `captures` that is the capture, in `messages` the row: each conversation's, then those of
    its new messages. In `analysis` and `analysis-later` it is counted alike, in `analyses` it is
    the row too. WHOLE_RECORD where no part could be told.
    """

    topic: str
    partition: int
    offset: int
    index: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}/{self.index}"


class DeadLetter(Struct, frozen=True):
    """A letter without its value. `detail` is for a person, and holds no content of messages."""

    reason: Reason
    detail: str
    source: Source

    @property
    def key(self) -> bytes:
        return str(self.source).encode()

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers of the letter's record."""
        texts = {
            "reason": self.reason,
            "detail": self.detail,
            "source-topic": self.source.topic,
            "source-partition": str(self.source.partition),
            "source-offset": str(self.source.offset),
            "source-index": str(self.source.index),
        }
        return [(name, text.encode(errors="replace")) for name, text in texts.items()]

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes]]) -> "DeadLetter":
        """Return the letter of a record with these headers.

        A reason that is none of ours, as earlier releases wrote them, becomes the detail.

        Raises:
            UndecodableError: the headers name no source.

        """
        texts = {name: value.decode(errors="replace") for name, value in headers}
        try:
            source = Source(
                texts["source-topic"],
                int(texts["source-partition"]),
                int(texts["source-offset"]),
                int(texts["source-index"]),
            )
        except (KeyError, ValueError) as error:
            raise UndecodableError(f"no source: {error!r}") from error
        given = texts.get("reason", "")
        reason = next((known for known in REASONS if known == given), None)
        detail = texts.get("detail", "")
        if reason is None:
            return cls("other", ": ".join(filter(None, (given, detail))), source)
        return cls(reason, detail, source)


def detail_of(error: BaseException | None) -> str:
    """Return what went wrong in one line, short and encodable, without what the error quotes."""
    text = " ".join(str(error).encode(errors="replace").decode().split())
    path = _PATH.search(text)
    safe = _CONTENT.sub("...", text)
    if path and not safe.endswith(path[0]):
        safe = safe[: MAX_DETAIL_CHARACTERS - len(path[0])] + path[0]
    if not isinstance(error, UndecodableError):
        safe = f"{type(error).__name__}: {safe}"
    return safe[:MAX_DETAIL_CHARACTERS]
