"""From records of `messages` to ClickHouse's rows. Pure.

Ids stay 16 bytes and times microseconds: clickhouse-connect writes them as they are.
"""

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
    NewMessage,
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


class Origin(NamedTuple):
    """Where a row came from: its change, and the number in the record of the change's first row.

    The rows of a record are counted from 0: of each change the conversation's, then its messages'.
    A change that has no rows counts as one.
    """

    partition: int
    offset: int
    first_row: int
    change: Change


class Row(NamedTuple):
    """One row, in the order of its table's columns, and where it came from."""

    values: tuple[Any, ...]
    origin: Origin


class Rejected(NamedTuple):
    """What can never be written, a change or a row: its letter, and a `messages` record of it."""

    letter: DeadLetter
    value: bytes


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
        first_row = 0
        for change in messages_codec.decode(value):
            origin = Origin(partition, offset, first_row, change)
            first_row += 1
            try:
                state, new = decode_state(change.state), decode_new_messages(change.messages)
                conversation = _conversation(state)
            except UndecodableError as error:
                source = Source(topics.MESSAGES, partition, offset, origin.first_row)
                letter = DeadLetter("undecodable_output", detail_of(error), source)
                rejected.append(Rejected(letter, messages_codec.encode([change])))
                continue
            first_row += len(new)
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
                row = Row((*ids, *conversation), origin)
                self.conversations[state.conversation_id] = row
        return rejected


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
