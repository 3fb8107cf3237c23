"""Which dead letters there are, and which of them are meant. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from schemas import topics
from schemas.codec import UndecodableError
from schemas.dead_letters import WHOLE_RECORD, DeadLetter, Reason, Source, detail_of

_AGE = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class DeadLettersError(Exception):
    """Raised when letters can't be dealt with as asked; says what to do."""


class Listed(Struct, frozen=True):
    """A letter without its value, and where it lies in dead-letters. `id` names it to a person."""

    id: str
    letter: DeadLetter
    key: bytes
    partition: int
    offset: int
    at: datetime
    size_bytes: int


class Filters(Struct, frozen=True):
    """Which letters are meant; None is no condition. `since` and `until` are both included."""

    reason: Reason | None = None
    topic: str | None = None
    partition: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    def match(self, listed: Listed) -> bool:
        letter = listed.letter
        return (
            self.reason in {None, letter.reason}
            and self.topic in {None, letter.source.topic}
            and self.partition in {None, letter.source.partition}
            and (self.since is None or self.since <= listed.at)
            and (self.until is None or listed.at <= self.until)
        )


class Letters:
    """The letters that are there: the newest record of each key. Pure: records in, letters out."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Listed] = {}

    def apply(self, record: Any) -> None:
        """Apply one record of dead-letters, in its partition's order; a tombstone drops a letter.

        Earlier releases wrote letters without a key, several of one source even. Each is named by
        its source and its own offset, and a tombstone for that name drops it.
        """
        if record.value is None:
            self._by_key.pop(record.key, None)
            return
        try:
            letter = DeadLetter.from_headers(record.headers)
        except UndecodableError as error:
            source = Source(topics.DEAD_LETTERS, record.partition, record.offset, WHOLE_RECORD)
            letter = DeadLetter("other", detail_of(error), source)
        key = record.key or letter.key + b"@%d" % record.offset
        self._by_key.pop(key, None)
        self._by_key[key] = Listed(
            key.decode(errors="replace"),
            letter,
            key,
            record.partition,
            record.offset,
            datetime.fromtimestamp(record.timestamp / 1000, UTC),
            len(record.value),
        )

    def all(self) -> list[Listed]:
        """Return the letters, oldest first."""
        return sorted(self._by_key.values(), key=lambda listed: (listed.at, listed.id))


def counts(letters: Iterable[Listed]) -> dict[Reason, int]:
    """Return how many letters each reason has, the commonest first."""
    return dict(Counter(listed.letter.reason for listed in letters).most_common())


def named(letters: Iterable[Listed], ids: Sequence[str]) -> list[Listed]:
    """Return the letters of these ids. Raises DeadLettersError where one is not there."""
    by_id = {listed.id: listed for listed in letters}
    for wanted in ids:
        if wanted not in by_id:
            raise DeadLettersError(
                f"there is no dead letter {wanted}: `openbat dead-letters list` names them"
            )
    return [by_id[wanted] for wanted in dict.fromkeys(ids)]


def moment(text: str, now: datetime) -> datetime:
    """Return the time that a person gave: an age such as 2h, or ISO 8601, UTC without an offset.

    Raises:
        DeadLettersError: it is neither.

    """
    age = _AGE.fullmatch(text)
    try:
        if age:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        given = datetime.fromisoformat(text)
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise DeadLettersError(
            f"{text}: expected an age such as 90s, 5m, 2h or 7d, or a time such as 2025-01-31T12:00"
        ) from None
