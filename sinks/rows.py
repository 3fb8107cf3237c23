"""From records of `messages` to ClickHouse's rows. Pure.

Ids stay 16 bytes and times microseconds: clickhouse-connect writes them as they are.
"""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from schemas.capture import Organization, Session, Shape, User
from schemas.codec import UndecodableError
from schemas.records import (
    ConversationState,
    decode_new_messages,
    decode_state,
    encode,
    messages_codec,
)
from schemas.times import FIRST_INSTANT, LAST_INSTANT, microseconds

MESSAGE_TABLE = "openbat.message_rows"
CONVERSATION_TABLE = "openbat.conversation_rows"

MESSAGE_COLUMNS = (
    "chatbot_id", "conversation_id", "external_conversation_id", "message_id", "role", "content",
    "sent_at", "received_at", "position",
)  # fmt: skip


class Source(NamedTuple):
    """Where a row came from: the place of its change in its record."""

    partition: int
    offset: int
    change: int


class Row(NamedTuple):
    """One row, in the order of its table's columns, and where it came from."""

    values: tuple[Any, ...]
    source: Source


class Rejected(NamedTuple):
    """What can never be written, a change or a row of it: as bytes, with why and whence."""

    value: bytes
    reason: str
    source: Source


_SHAPES: dict[str, Shape] = {"user": User, "organization": Organization, "session": Session}
"""Groups whose known members have a column each."""

CONVERSATION_COLUMNS = (
    "chatbot_id", "conversation_id", "external_conversation_id",
    *(f"{group}_{member}" for group, shape in _SHAPES.items()
      for member in (*shape.__struct_fields__, "other")),
    "custom", "message_count", "first_message_at", "last_message_at", "created_at", "updated_at",
    "revision",
)  # fmt: skip

_json = msgspec.json.Encoder().encode


class RowBatch:
    """Rows of several records: every message, and of each conversation the newest state."""

    def __init__(self) -> None:
        self.messages: list[Row] = []
        self.conversations: dict[bytes, Row] = {}

    @property
    def rows(self) -> int:
        return len(self.messages) + len(self.conversations)

    def add(self, value: bytes, partition: int, offset: int) -> list[Rejected]:
        """Add the rows of one `messages` record.

        Returns:
            Its changes that have no rows: a part of each is in no format that this release reads.

        Raises:
            UndecodableError: the record itself is.

        """
        rejected = []
        for index, change in enumerate(messages_codec.decode(value)):
            source = Source(partition, offset, index)
            try:
                state, new = decode_state(change.state), decode_new_messages(change.messages)
                conversation = _conversation(state)
            except UndecodableError as error:
                rejected.append(Rejected(encode(change), str(error), source))
                continue
            ids = state.chatbot_id, state.conversation_id, state.external_id
            self.messages += [
                Row(
                    (
                        *ids, message.id, message.role, message.content, message.sent_at,
                        message.received_at, message.position,
                    ),
                    source,
                )
                for message in new
            ]  # fmt: skip
            known = self.conversations.get(state.conversation_id)
            if known is None or known.values[-1] <= state.revision:
                row = Row((*ids, *conversation), source)
                self.conversations[state.conversation_id] = row
        return rejected


def _conversation(state: ConversationState) -> list[Any]:
    """Return the columns after the ids. Raises UndecodableError."""
    try:
        return [
            *(column for group in _SHAPES for column in _group(state, group)),
            _json(state.fields.get("custom", {})).decode(),
            state.message_count,
            state.first_message_at,
            state.last_message_at,
            state.created_at,
            state.updated_at,
            state.revision,
        ]
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise UndecodableError(str(error)) from error


def _group(state: ConversationState, group: str) -> list[Any]:
    """Return the columns of a group's known members, and the one of all others."""
    sent = state.fields.get(group, {})
    known = msgspec.convert(sent, _SHAPES[group])
    columns = list(msgspec.structs.astuple(known))
    if isinstance(known, User) and known.created_at is not None:
        columns[User.__struct_fields__.index("created_at")] = _instant(known.created_at)
    names = known.__struct_encode_fields__
    others = {name: value for name, value in sent.items() if name not in names}
    return [*columns, _json(others).decode()]


def _instant(text: str) -> int:
    try:
        instant = microseconds(datetime.fromisoformat(text))
    except ValueError:
        instant = LAST_INSTANT + 1
    if not FIRST_INSTANT <= instant <= LAST_INSTANT:
        raise UndecodableError("createdAt is no time of the years 1900 to 2299")
    return instant
