"""A worker without Kafka: the pure logic over a table in memory."""

from collections.abc import Iterable
from typing import NamedTuple

from schemas.records import ConversationState, NewMessage, decode_new_messages, decode_state
from streams.apply import apply_record, needed_keys
from streams.entries import STATE, replay_entry, state_codec, state_key
from tests.property.strategies import Record

Entry = tuple[bytes, bytes | None]
Table = dict[bytes, bytes]
MessagesOf = dict[bytes, list[NewMessage]]


class Outcome(NamedTuple):
    """What one record led to; conversations by their ids, those without messages left out."""

    stored: list[int | None]
    messages: MessagesOf
    analysed: MessagesOf
    states: dict[bytes, ConversationState]
    changelog: list[Entry]


def process(table: Table, record: Record) -> Outcome:
    """Process a record, reading of the table only what a worker reads of it."""
    known = {key: table[key] for key in needed_keys(record.captures) if key in table}
    applied = apply_record(record.captures, record.generation, record.offset, known)
    table.update(applied.local)
    messages = {
        change.conversation_id: decode_new_messages(change.messages) for change in applied.messages
    }
    return Outcome(
        [result.stored for result in applied.results],
        {conversation: new for conversation, new in messages.items() if new},
        {item.conversation_id: decode_new_messages(item.messages) for item in applied.analysis},
        {change.conversation_id: decode_state(change.state) for change in applied.messages},
        applied.changelog,
    )


def process_all(table: Table, records: Iterable[Record]) -> list[Outcome]:
    return [process(table, record) for record in records]


def changelog_of(outcomes: Iterable[Outcome]) -> list[Entry]:
    return [entry for outcome in outcomes for entry in outcome.changelog]


def rebuilt(changelog: Iterable[Entry]) -> Table:
    """Return the table that recovery makes of a changelog."""
    table: Table = {}
    for key, value in changelog:
        stored = table.get(state_key(key[1:17])) if key[:1] == STATE else None
        newest_revision = int.from_bytes(stored[:8]) if stored else 0
        for local_key, entry in replay_entry(key, value, newest_revision).items():
            if entry is None:
                table.pop(local_key, None)
            else:
                table[local_key] = entry
    return table


def state_of(table: Table, conversation_id: bytes) -> ConversationState:
    return state_codec.decode(table[state_key(conversation_id)][8:])
