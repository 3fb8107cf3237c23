"""From records of `messages` to ClickHouse's rows. Pure.

Ids stay 16 bytes and times microseconds: clickhouse-connect writes them as they are.
"""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from schemas.capture import Organization, Session, User
from schemas.codec import UndecodableError
from schemas.records import (
    Change,
    ConversationState,
    NewMessage,
    decode_new_messages,
    decode_state,
    encode,
    messages_codec,
)
from schemas.times import microseconds

MESSAGE_TABLE = "openbat.message_rows"
CONVERSATION_TABLE = "openbat.conversation_rows"

MESSAGE_COLUMNS = (
    "chatbot_id", "conversation_id", "external_conversation_id", "message_id", "role", "content",
    "sent_at", "received_at", "position",
)  # fmt: skip


class Origin(NamedTuple):
    """Where a row came from: its change, and the number in the record of the change's first row.

    The rows of a record are counted from 0: of each change the conversation's, then its messages'.
    """

    partition: int
    offset: int
    first_row: int
    change: Change


class Row(NamedTuple):
    """One row, in the order of its table's columns, and where it came from."""

    values: tuple[Any, ...]
    origin: Origin


def _columns_of(group: str, shape: type[User | Organization | Session]) -> list[tuple[str, str]]:
    """Return the group's members, each with its column."""
    fields = msgspec.structs.fields(shape)
    return [(field.encode_name, f"{group}_{field.name}") for field in fields]


_GROUPS = {
    group: _columns_of(group, shape)
    for group, shape in (("user", User), ("organization", Organization), ("session", Session))
}

CONVERSATION_COLUMNS = (
    "chatbot_id", "conversation_id", "external_conversation_id",
    *(column for group, members in _GROUPS.items()
      for column in (*(name for _, name in members), f"{group}_other")),
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

    def add(self, value: bytes, partition: int, offset: int) -> None:
        """Add the rows of one `messages` record.

        Raises:
            UndecodableError: the record, or a part of it, is in no format that this release reads.
                None of its rows is added then.

        """
        try:
            decoded = [
                (change, decode_state(change.state), decode_new_messages(change.messages))
                for change in messages_codec.decode(value)
            ]
            conversations = [_conversation(state) for _, state, _ in decoded]
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            raise UndecodableError(str(error)) from error
        first_row = 0
        for index, (change, state, new) in enumerate(decoded):
            origin = Origin(partition, offset, first_row, change)
            first_row += 1 + len(new)
            ids = state.chatbot_id, state.conversation_id, state.external_id
            self.messages += [
                Row(
                    (
                        *ids, message.id, message.role, message.content, message.sent_at,
                        message.received_at, message.position,
                    ),
                    origin,
                )
                for message in new
            ]  # fmt: skip
            known = self.conversations.get(state.conversation_id)
            if known is None or known.values[-1] <= state.revision:
                row = Row((*ids, *conversations[index]), origin)
                self.conversations[state.conversation_id] = row


def record_of(table: str, row: Row) -> tuple[bytes, int]:
    """Return a `messages` record that makes this row again, and the row's number in its own.

    It holds the conversation's state as the row's record had it, and of the messages that one.
    """
    _, _, number, change = row.origin
    kept: list[NewMessage] = []
    if table == MESSAGE_TABLE:
        for at, message in enumerate(decode_new_messages(change.messages), start=1):
            if row.values[3:] == msgspec.structs.astuple(message):
                kept = [message]
                number += at
                break
    part = Change(change.conversation_id, change.state, msgspec.Raw(encode(kept)))
    return messages_codec.encode([part]), number


def _conversation(state: ConversationState) -> list[Any]:
    values: list[Any] = []
    for group, members in _GROUPS.items():
        fields = dict(state.fields.get(group, {}))
        for name, column in members:
            value = fields.pop(name, None)
            if column == "user_created_at" and value is not None:
                value = microseconds(datetime.fromisoformat(value))
            values.append(value)
        values.append(_json(fields).decode())
    values += [
        _json(state.fields.get("custom", {})).decode(),
        state.message_count,
        state.first_message_at,
        state.last_message_at,
        state.created_at,
        state.updated_at,
        state.revision,
    ]
    return values
