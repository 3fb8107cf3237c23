"""A worker's table: a Faust table whose changelog entries leave as one batch per record.

Faust's own path costs a record in its producer's buffer and a callback per entry. Here a record's
entries are one Kafka batch, acknowledged as a whole; until then they are kept in memory, over the
store, so that the next record already reads them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import faust

from streams.store import ReplayEntry, TableStore

Entries = Mapping[bytes, bytes]
Changes = Mapping[bytes, bytes | None]
"""Local entries by their keys, None for one that goes."""


class SecondWriterError(Exception):
    """Raised when somebody else wrote to a changelog partition that this worker owns."""


class WorkerTable(faust.Table):  # type: ignore[misc]
    """Entries by partition: read through `read`, staged by `stage`, made durable by `commit`."""

    def __init__(
        self,
        app: faust.App,
        on_failure: Callable[[BaseException], None],
        cache_bytes: int,
        replay_entry: ReplayEntry,
        **kwargs: Any,
    ) -> None:
        self._cache_bytes = cache_bytes
        self._replay_entry = replay_entry
        super().__init__(app, key_type=bytes, value_type=bytes, **kwargs)
        self._on_failure = on_failure
        self._staged: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        self._next_offset: dict[int, int] = {}

    def _new_store(self) -> TableStore:
        return TableStore(
            "rocksdb://", self.app, self, table_name=self.name, key_type=bytes,
            key_serializer="raw", value_serializer="raw", value_type=bytes,
            cache_bytes=self._cache_bytes, replay_entry=self._replay_entry,
        )  # fmt: skip

    def read(self, partition: int, keys: list[bytes]) -> dict[bytes, bytes]:
        """Return the newest entries under the keys, staged ones included."""
        staged = self._staged[partition]
        found: dict[bytes, bytes] = {}
        missing = []
        for key in keys:
            entry = staged.get(key)
            if entry is None:
                missing.append(key)
            else:
                found[key] = entry
        if missing:
            store = cast("TableStore", self.data)
            stored = zip(missing, store.read(partition, missing), strict=True)
            found |= {key: entry for key, entry in stored if entry is not None}
        return found

    def scan(
        self, partition: int, start: bytes, end: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return committed keys from one on, up to an end that is left out, in order.

        Each comes with its newest value, which may be a staged one.
        """
        staged = self._staged[partition]
        found = cast("TableStore", self.data).scan(partition, start, end, limit)
        return [(key, staged.get(key, value)) for key, value in found]

    def stage(self, partition: int, entries: Entries) -> None:
        """Let `read` see entries whose changelog batch is on its way."""
        self._staged[partition].update(entries)

    def commit(
        self, partition: int, entries: Changes, acknowledged: Sequence[tuple[int, int]]
    ) -> None:
        """Write acknowledged entries to the store.

        Args:
            partition: whose entries they are.
            entries: as they were staged, and what is removed.
            acknowledged: of each changelog batch that holds them, the offset that the broker
                acknowledged it at, and how many records it has.

        Raises:
            SecondWriterError: an offset is not the next one after what this worker wrote or
                recovered. Another worker writes there too, so nothing more may be written.

        """
        expected = self._next_offset.get(partition)
        if expected is None:
            expected = self._recovered_offset(partition)
        for base_offset, count in acknowledged:
            if base_offset != expected:
                raise SecondWriterError(
                    f"changelog partition {partition}: acknowledged at offset {base_offset}, "
                    f"expected {expected}"
                )
            expected += count
        self._next_offset[partition] = expected
        cast("TableStore", self.data).write(partition, entries, expected - 1)
        staged = self._staged[partition]
        for key, entry in entries.items():
            if entry is not None and staged.get(key) is entry:
                del staged[key]

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Apply changelog entries at recovery.

        Faust logs what goes wrong here, and tries again for ever; `on_failure` is called instead.
        """
        try:
            super().apply_changelog_batch(batch)
        except Exception as error:  # noqa: BLE001 - a table that lacks an entry may not be used
            self._on_failure(error)

    def sizes(self) -> dict[int, tuple[int, int]]:
        """Return the entries, as RocksDB estimates them, and bytes of files, by partition."""
        return cast("TableStore", self.data).sizes()

    def forget_positions(self) -> None:
        """Start anew after a rebalance: what was staged is written, or will be replayed."""
        self._next_offset.clear()
        self._staged.clear()

    def _recovered_offset(self, partition: int) -> int:
        """Return the offset after the last changelog record, as recovery saw it."""
        highwaters = self.app.tables.recovery.active_highwaters
        return cast("int", highwaters[faust.types.TP(self.changelog_topic_name, partition)]) + 1
