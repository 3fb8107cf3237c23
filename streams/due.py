"""Which conversations are due: to be judged as a whole, or to be forgotten."""

from collections.abc import Iterable

from streams.context import DUE, conversation_due, due_prefix
from streams.table import WorkerTable

_NEXT = b"\0"


class DueIndex:
    """Reads the index of a table of contexts from where it was last read to.

    Every message of a conversation takes its last entry away and adds a later one. Read from its
    beginning each time, the index would be a walk over all that was deleted since RocksDB last
    compacted it.

    Args:
        table: of contexts.
        at_once: how many one call of `take` returns at most.

    """

    def __init__(self, table: WorkerTable, at_once: int) -> None:
        self._table = table
        self._at_once = at_once
        self._read_to: dict[int, bytes] = {}

    def take(self, partition: int, clock: int) -> list[tuple[bytes, bytes]]:
        """Return keys that are due before a time, in microseconds, and their conversations.

        They are not returned again; the caller takes them out of the index, or moves them on.
        """
        start = self._read_to.get(partition, due_prefix(0))
        end = due_prefix(max(0, clock))
        if start >= end:
            return []
        keys = [key for key, _ in self._table.scan(partition, start, end, self._at_once)]
        self._read_to[partition] = end if len(keys) < self._at_once else keys[-1] + _NEXT
        return [(key, conversation_due(key)) for key in keys]

    def committed(self, partition: int, keys: Iterable[bytes]) -> None:
        """Take in that entries with these keys are in the table now: some may be due already."""
        earliest = min((key for key in keys if key[:1] == DUE), default=None)
        if earliest is not None and earliest < self._read_to.get(partition, earliest):
            self._read_to[partition] = earliest

    def start_over(self) -> None:
        """Forget how far it was read, as partitions change hands."""
        self._read_to.clear()
