"""Removes message ids that are forgotten, a few with each gulp, driven by the time in records.

It removes only what no capture can ask for any more (`forgetting.py`), so it changes no answer,
whenever it comes and wherever it is cut short. States stay.
"""

from typing import NamedTuple, Protocol

from streams.entries import (
    conversation_due,
    due_prefix,
    introduced_key,
    message_prefix,
    state_codec,
    state_key,
)
from streams.forgetting import DAY_MICROSECONDS, removable_before

IDS_AT_ONCE = 1_000
"""What one gulp removes at most; each may cost a tombstone in the changelog."""

_NEXT = b"\0"
_AFTER_EVERY_ID = b"\xff" * 34


class Entries(Protocol):
    """The table, as far as a sweep reads it."""

    def read(self, partition: int, keys: list[bytes]) -> dict[bytes, bytes]: ...

    def scan(
        self, partition: int, start: bytes, end: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]: ...


class Swept(NamedTuple):
    """What goes: local entries, and the tombstones that say so in the changelog."""

    local: dict[bytes, None]
    changelog: list[tuple[bytes, None]]


class _Cursor:
    """How far a partition has been swept: whole days, and a place within the day under way."""

    __slots__ = ("day", "done", "due_from", "id_from")

    def __init__(self) -> None:
        self.day = self.done = 0
        self.due_from = self.id_from = b""


class Sweeper:
    """Sweeps each partition once for every day that its records reach.

    Where no chatbot forgets, a day's sweep is one look at an index that is empty.
    """

    def __init__(self, entries: Entries, ids_at_once: int = IDS_AT_ONCE) -> None:
        self._entries = entries
        self._ids_at_once = ids_at_once
        self._cursors: dict[int, _Cursor] = {}

    def start_over(self) -> None:
        """Sweep anew from the next records on: partitions were given up, or taken over."""
        self._cursors.clear()

    def sweep(self, partition: int, record_time: int) -> Swept:
        """Return what goes now.

        Args:
            partition: whose gulp was just staged.
            record_time: the latest receive time in the gulp, in microseconds.

        """
        swept = Swept({}, [])
        cursor = self._cursors.get(partition)
        if cursor is None:
            cursor = self._cursors[partition] = _Cursor()
        cursor.day = max(cursor.day, record_time // DAY_MICROSECONDS)
        if cursor.day > cursor.done:
            self._sweep(partition, cursor, swept)
        return swept

    def _sweep(self, partition: int, cursor: _Cursor, swept: Swept) -> None:
        start = cursor.due_from or due_prefix(0)
        end = due_prefix(cursor.day + 1)
        room = self._ids_at_once
        due = self._entries.scan(partition, start, end, room)
        for key, _ in due:
            if room:
                room = self._sweep_conversation(partition, cursor, key, room, swept)
            if not room:
                cursor.due_from = key
                return
            room -= 1
            swept.local[key] = None
        if len(due) == self._ids_at_once:
            cursor.due_from = due[-1][0] + _NEXT
            return
        cursor.done = cursor.day
        # The next day begins anew: what was on its way into the store was not seen yet.
        cursor.due_from = cursor.id_from = b""

    def _sweep_conversation(
        self, partition: int, cursor: _Cursor, key: bytes, room: int, swept: Swept
    ) -> int:
        """Remove a conversation's ids; return how much room is left, 0 where it was cut short."""
        conversation_id = conversation_due(key)
        prefix = message_prefix(conversation_id)
        # Taken back at once: the conversation may have changed since it was cut short.
        start, cursor.id_from = cursor.id_from or prefix, b""
        entry = self._entries.read(partition, [state_key(conversation_id)])
        if not entry:
            return room
        state = state_codec.decode(entry[state_key(conversation_id)][8:])
        before = removable_before(state, cursor.day)
        if not before:
            return room
        found = self._entries.scan(partition, start, prefix + _AFTER_EVERY_ID, room)
        tombstones: dict[bytes, None] = {}
        for id_key, position in found:
            if int.from_bytes(position) < before:
                swept.local[id_key] = None
                tombstones[introduced_key(conversation_id, int.from_bytes(position))] = None
        swept.changelog.extend(tombstones.items())
        if len(found) < room:
            return room - len(found)
        cursor.id_from = found[-1][0] + _NEXT
        return 0
