"""A worker without Kafka: the pure logic over a table in memory."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from schemas.records import ConversationState, NewMessage, decode_new_messages, decode_state
from streams.apply import apply_record, needed_keys
from streams.entries import replay_entry, state_codec, state_key
from tests.property.strategies import Record

Entry = tuple[bytes, bytes | None]
Table = dict[bytes, bytes]
Changes = Mapping[bytes, bytes | None]
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
    if isinstance(table, LayeredTable):
        table.put(applied.local)
    else:
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
        change(table, replay_entry(key, value, table.get))
    return table


def change(table: Table, entries: Changes) -> None:
    for key, entry in entries.items():
        if entry is None:
            table.pop(key, None)
        else:
            table[key] = entry


def compacted(changelog: list[Entry], *, tombstones_expired: bool) -> list[Entry]:
    """Return what Kafka leaves: each key's last entry, and tombstones for a while."""
    last = {key: at for at, (key, _) in enumerate(changelog)}
    return [
        (key, value)
        for at, (key, value) in enumerate(changelog)
        if last[key] == at and not (tombstones_expired and value is None)
    ]


class LayeredTable(dict[bytes, bytes]):
    """A table in memory whose changes are seen at once, and committed one after the other."""

    def __init__(self, stored: Table) -> None:
        super().__init__(stored)
        self._stored = dict(stored)
        self._pending: list[Changes] = []

    def put(self, entries: Table) -> None:
        self.update(entries)
        self._pending.append(entries)

    def remove(self, keys: Iterable[bytes]) -> None:
        self._pending.append(dict.fromkeys(keys))

    def commit(self, changes: int) -> None:
        """Commit the oldest changes that are not committed yet."""
        for _ in range(min(changes, len(self._pending))):
            entries = self._pending.pop(0)
            change(self._stored, entries)
            for key in entries.keys() - self._stored.keys():
                if not any(key in later for later in self._pending):
                    del self[key]

    def read(self, _partition: int, keys: list[bytes]) -> dict[bytes, bytes]:
        return {key: self[key] for key in keys if key in self}

    def scan(
        self, _partition: int, start: bytes, end: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        keys = sorted(key for key in self._stored if start <= key < end)[:limit]
        return [(key, self[key]) for key in keys]


def state_of(table: Table, conversation_id: bytes) -> ConversationState:
    return state_codec.decode(table[state_key(conversation_id)][8:])
