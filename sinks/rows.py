"""From records of `messages` to ClickHouse's rows. Pure.

A row is encoded once, as ClickHouse's format MsgPack wants it: the values of its columns, one after
the other, UUIDs as an extension type, times as microseconds, JSON as bytes.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

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
from sinks.faults import fault_of

MESSAGE_TABLE = "openbat.message_rows"
CONVERSATION_TABLE = "openbat.conversation_rows"

_IDS = ("chatbot_id", "conversation_id", "external_conversation_id")

MESSAGE_COLUMNS = (*_IDS, "message_id", *NewMessage.__struct_fields__[1:])
"""A message's values are its row's, so its encoding is the row's."""


P = TypeVar("P")


class Rejected(NamedTuple):
    """What can never be written, a part of a record or a row: its letter, and a record of it."""

    letter: DeadLetter
    value: bytes


class Rows(Generic[P]):
    """Rows of one table, each the MessagePack of its columns' values, and where they came from.

    Args:
        table: its name.
        columns: its columns, in the order of a row's values.
        record_of: given a part of a record, and the number of a row among those that the part has
            here, returns a record of the same topic that makes this row again.

    Attributes:
        encoded: the rows.

    """

    def __init__(
        self, table: str, columns: Sequence[str], record_of: Callable[[P, int], bytes]
    ) -> None:
        self.table = table
        self.columns = columns
        self.encoded: list[bytes] = []
        self._record_of = record_of
        self._starts: list[int] = []
        self._origins: list[tuple[Source, P]] = []

    def add(self, first: Source, part: P, encoded: Sequence[bytes]) -> None:
        """Add all rows of a part that go to this table; `first` is the source of the first."""
        self._starts.append(len(self.encoded))
        self._origins.append((first, part))
        self.encoded += encoded

    def rejected(self, index: int, error: BaseException) -> Rejected:
        """Return the letter and the record of the row at an index, which ClickHouse never takes."""
        # Of several parts that start here all but the last have no rows.
        found = bisect_right(self._starts, index) - 1
        first, part = self._origins[found]
        number = index - self._starts[found]
        source = replace(first, index=first.index + number)
        letter = DeadLetter("rejected_row", fault_of(error), source)
        return Rejected(letter, self._record_of(part, number))


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

UUID = b"\xd8\x02"
"""Before 16 bytes, most significant first: ClickHouse's extension type of a UUID."""
_ARRAY_16 = 0xDC
"""Begins an array of more than 15 values, before two bytes of their number; others take one."""

_json = msgspec.json.Encoder().encode


class RowBatch:
    """Rows of several records: every message, and of each conversation the newest state.

    The rows of a record are counted from 0: of each change the conversation's, then its messages'.
    A change that has no rows counts as one.
    """

    def __init__(self) -> None:
        self.messages = Rows(MESSAGE_TABLE, MESSAGE_COLUMNS, _message_record)
        self._newest: dict[bytes, tuple[int, Source, Change, bytes]] = {}

    @property
    def conversations(self) -> Rows[Change]:
        rows = Rows(CONVERSATION_TABLE, CONVERSATION_COLUMNS, _conversation_record)
        for _, source, change, encoded in self._newest.values():
            rows.add(source, change, [encoded])
        return rows

    @property
    def tables(self) -> tuple[Rows[Change], ...]:
        """The rows in the order in which tables are written: messages before conversations."""
        return self.messages, self.conversations

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
            source = Source(topics.MESSAGES, partition, offset, row)
            row += 1
            try:
                state, new = decode_state(change.state), decode_new_messages(change.messages)
                conversation = _conversation(state)
            except UndecodableError as error:
                letter = DeadLetter("undecodable_output", detail_of(error), source)
                rejected.append(Rejected(letter, messages_codec.encode([change])))
                continue
            ids = _ids(state)
            first = Source(topics.MESSAGES, partition, offset, row)
            self.messages.add(first, change, [ids + values(encode(message)) for message in new])
            row += len(new)
            known = self._newest.get(state.conversation_id)
            if known is None or known[0] <= state.revision:
                encoded = ids + values(encode(conversation))
                self._newest[state.conversation_id] = state.revision, source, change, encoded
        return rejected


def values(array: bytes) -> bytes:
    """Return the values of an encoded array: ClickHouse wants no header around a row's."""
    return array[1 if array[0] != _ARRAY_16 else 3 :]


def _message_record(change: Change, number: int) -> bytes:
    """Return a record of the conversation's state as it was then, and of one of the messages."""
    return _record(change, decode_new_messages(change.messages)[number : number + 1])


def _conversation_record(change: Change, _number: int) -> bytes:
    return _record(change, [])


def _record(change: Change, kept: list[NewMessage]) -> bytes:
    part = Change(change.conversation_id, change.state, msgspec.Raw(encode(kept)))
    return messages_codec.encode([part])


def _ids(state: ConversationState) -> bytes:
    chatbot_id, conversation_id = UUID + state.chatbot_id, UUID + state.conversation_id
    return chatbot_id + conversation_id + encode(state.external_id)


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
