"""From records of `messages` to ClickHouse's rows. Pure.

A row is encoded once, as ClickHouse's format MsgPack wants it: the values of its columns, one after
the other, UUIDs as an extension type, times as microseconds, JSON as bytes.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from schemas import topics
from schemas.capture import Organization, Session, Shape, User
from schemas.codec import UndecodableError
from schemas.dead_letters import DeadLetter, Source, detail_of
from schemas.records import (
    Change,
    ConversationState,
    Fields,
    NewMessage,
    decode_new_messages,
    decode_state,
    encode,
    messages_codec,
)
from schemas.times import FIRST_INSTANT, LAST_INSTANT, microseconds

MESSAGE_TABLE = "openbat.message_rows"
CONVERSATION_TABLE = "openbat.conversation_rows"

_IDS = ("chatbot_id", "conversation_id", "external_conversation_id")

MESSAGE_COLUMNS = (*_IDS, "message_id", *NewMessage.__struct_fields__[1:])
"""A message's values are its row's, so its encoding is the row's."""


class Origin(NamedTuple):
    """Where rows came from: their change, and the number in the record of the change's first row.

    The rows of a record are counted from 0: of each change the conversation's, then its messages'.
    A change that has no rows counts as one.
    """

    partition: int
    offset: int
    first_row: int
    change: Change


class Rows:
    """Rows of one table, each the MessagePack of its columns' values, and where they came from.

    Args:
        first: the number among its change's rows of the first one that goes to this table.

    Attributes:
        encoded: the rows.

    """

    def __init__(self, first: int) -> None:
        self.encoded: list[bytes] = []
        self._first = first
        self._starts: list[int] = []
        self._origins: list[Origin] = []

    def add(self, origin: Origin, encoded: Sequence[bytes]) -> None:
        """Add all rows of a change that go to this table."""
        self._starts.append(len(self.encoded))
        self._origins.append(origin)
        self.encoded += encoded

    def origin(self, index: int) -> tuple[Origin, int]:
        """Return where the row at an index came from, and its number among its change's."""
        # Of several changes that start here all but the last have no rows.
        found = bisect_right(self._starts, index) - 1
        return self._origins[found], self._first + index - self._starts[found]


class Rejected(NamedTuple):
    """What can never be written, a change or a row: its letter, and a `messages` record of it."""

    letter: DeadLetter
    value: bytes


_SHAPES: dict[str, Shape] = {"user": User, "organization": Organization, "session": Session}
"""Groups whose known members have a column each."""

_EMPTY = {
    group: (*(None for _ in shape.__struct_fields__), b"{}") for group, shape in _SHAPES.items()
}
"""The columns of a group of which nothing is known."""

CONVERSATION_COLUMNS = (
    *_IDS,
    *(f"{group}_{member}" for group, shape in _SHAPES.items()
      for member in (*shape.__struct_fields__, "other")),
    "custom", "message_count", "first_message_at", "last_message_at", "created_at", "updated_at",
    "revision",
)  # fmt: skip

_UUID = b"\xd8\x02"
"""Before 16 bytes, most significant first: ClickHouse's extension type of a UUID."""
_ARRAY_16 = 0xDC
"""Begins an array of more than 15 values, before two bytes of their number; others take one."""

_json = msgspec.json.Encoder().encode


class RowBatch:
    """Rows of several records: every message, and of each conversation the newest state."""

    def __init__(self) -> None:
        self.messages = Rows(first=1)
        self._newest: dict[bytes, tuple[int, Origin, bytes]] = {}

    @property
    def conversations(self) -> Rows:
        rows = Rows(first=0)
        for _, origin, encoded in self._newest.values():
            rows.add(origin, [encoded])
        return rows

    @property
    def rows(self) -> int:
        return len(self.messages.encoded) + len(self._newest)

    def add(self, value: bytes, partition: int, offset: int) -> list[Rejected]:
        """Add the rows of one `messages` record.

        Returns:
            Its changes that have no rows: a part of each is in no format that this release reads.

        Raises:
            UndecodableError: the record itself is.

        """
        rejected = []
        row = 0
        for change in messages_codec.decode(value):
            origin = Origin(partition, offset, row, change)
            row += 1
            try:
                state, new = decode_state(change.state), decode_new_messages(change.messages)
                conversation = _conversation(state)
            except UndecodableError as error:
                source = Source(topics.MESSAGES, partition, offset, origin.first_row)
                letter = DeadLetter("undecodable_output", detail_of(error), source)
                rejected.append(Rejected(letter, messages_codec.encode([change])))
                continue
            ids = _ids(state)
            self.messages.add(origin, [ids + _values(encode(message)) for message in new])
            row += len(new)
            known = self._newest.get(state.conversation_id)
            if known is None or known[0] <= state.revision:
                encoded = ids + _values(encode(conversation))
                self._newest[state.conversation_id] = state.revision, origin, encoded
        return rejected


def record_of(change: Change, number: int) -> bytes:
    """Return a `messages` record that makes one row of a change again.

    It holds the conversation's state as the row's record had it, and of the messages that one.
    """
    kept = decode_new_messages(change.messages)[number - 1 : number] if number else []
    part = Change(change.conversation_id, change.state, msgspec.Raw(encode(kept)))
    return messages_codec.encode([part])


def _ids(state: ConversationState) -> bytes:
    chatbot_id, conversation_id = _UUID + state.chatbot_id, _UUID + state.conversation_id
    return chatbot_id + conversation_id + encode(state.external_id)


def _values(array: bytes) -> bytes:
    """Return the values of an encoded array: ClickHouse wants no header around a row's."""
    return array[1 if array[0] != _ARRAY_16 else 3 :]


def _conversation(state: ConversationState) -> list[Any]:
    """Return the columns after the ids. Raises UndecodableError."""
    fields = state.fields
    try:
        return [
            *_group(fields, "user"),
            *_group(fields, "organization"),
            *_group(fields, "session"),
            _json(fields.get("custom", {})),
            state.message_count,
            state.first_message_at,
            state.last_message_at,
            state.created_at,
            state.updated_at,
            state.revision,
        ]
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise UndecodableError(str(error)) from error


def _group(fields: Fields, group: str) -> Sequence[Any]:
    """Return the columns of a group's known members, and the one of all others."""
    sent = fields.get(group)
    if not sent:
        return _EMPTY[group]
    known = msgspec.convert(sent, _SHAPES[group])
    columns = list(msgspec.structs.astuple(known))
    if isinstance(known, User) and known.created_at is not None:
        columns[User.__struct_fields__.index("created_at")] = _instant(known.created_at)
    names = known.__struct_encode_fields__
    others = {name: value for name, value in sent.items() if name not in names}
    return [*columns, _json(others) if others else b"{}"]


def _instant(text: str) -> int:
    try:
        instant = microseconds(datetime.fromisoformat(text))
    except ValueError:
        instant = LAST_INSTANT + 1
    if not FIRST_INSTANT <= instant <= LAST_INSTANT:
        raise UndecodableError("createdAt is no time of the years 1900 to 2299")
    return instant
