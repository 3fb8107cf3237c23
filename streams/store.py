"""A table's local store: RocksDB, one database per partition.

The store is exactly a prefix of the changelog: entries are written only after the broker
acknowledged them, in order, together with the offset that they reach, in one atomic write. So it
is never ahead of the changelog, and whatever is killed, recovery goes on from its offset.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Protocol

import rocksdict
from faust.stores.rocksdb import Store

WRITE_BUFFER_BYTES = 16 * 1024 * 1024
MAX_WAL_BYTES = 64 * 1024 * 1024
MAX_OPEN_FILES = 256
LOG_BYTES = 8 * 1024 * 1024
LOG_FILES = 4
BLOOM_BITS_PER_KEY = 10


class ReplayEntry(Protocol):
    """What one changelog entry changes locally; None for an entry that goes.

    `known` returns the local entry under a key as it is so far. Raises UndecodableError.
    """

    def __call__(
        self, key: bytes, value: bytes | None, known: Callable[[bytes], bytes | None], /
    ) -> Mapping[bytes, bytes | None]: ...


class TableStore(Store):  # type: ignore[misc]
    """RocksDB with a memory cap that all partitions of a worker share.

    RocksDB's defaults, as Faust sets them, take gigabytes per partition.

    Args:
        cache_bytes: for blocks and for what is not written to files yet, half of it at most.
        replay_entry: applied to each changelog entry at recovery.

    """

    def __init__(
        self, *args: Any, cache_bytes: int, replay_entry: ReplayEntry, **kwargs: Any
    ) -> None:
        super().__init__(*args, driver="rocksdict", **kwargs)
        self._replay_entry = replay_entry
        cache = rocksdict.Cache(cache_bytes)
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(cache)
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, block_based=False)
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        # A large file's filter is larger than a shard of the cache: as a whole, it is never kept.
        table.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
        table.set_partition_filters(True)
        table.set_pin_top_level_index_and_filter(True)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_write_buffer_manager(
            rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
                cache_bytes // 2, False, cache
            )
        )
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_total_wal_size(MAX_WAL_BYTES)
        options.set_max_open_files(MAX_OPEN_FILES)
        # RocksDB's own log: its defaults are a thousand files of any size.
        options.set_max_log_file_size(LOG_BYTES)
        options.set_keep_log_file_num(LOG_FILES)
        self._options = options

    def _open_for_partition(self, partition: int) -> rocksdict.Rdict:
        return rocksdict.Rdict(str(self.partition_path(partition)), self._options)

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Return the entries under the keys, None where there is none."""
        found: list[bytes | None] = self._db_for_partition(partition).get(keys)
        return found

    def scan(
        self, partition: int, start: bytes, end: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return entries from a key on, up to an end that is left out, in the order of keys."""
        # Without it the iterator passes over what was deleted behind the end, to find a next key.
        options = rocksdict.ReadOptions()
        options.set_iterate_upper_bound(end)
        entries = self._db_for_partition(partition).items(from_key=start, read_opt=options)
        return list(islice(entries, limit))

    def write(self, partition: int, entries: Mapping[bytes, bytes | None], offset: int) -> None:
        """Write entries, and the changelog offset that they reach, atomically."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in entries.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self.offset_key, str(offset).encode())
        self._db_for_partition(partition).write(batch)

    def sizes(self) -> dict[int, tuple[int, int]]:
        """Return the entries, as RocksDB estimates them, and bytes of files, by partition."""
        return {
            partition: (
                db.property_int_value("rocksdb.estimate-num-keys") or 0,
                db.property_int_value("rocksdb.total-sst-files-size") or 0,
            )
            for partition, db in self._dbs.items()
        }

    def apply_changelog_batch(
        self,
        batch: Iterable[Any],
        to_key: Callable[[Any], Any],
        to_value: Callable[[Any], Any],
    ) -> None:
        """Apply changelog entries at recovery, in the order of their offsets."""
        by_partition: dict[int, list[Any]] = {}
        for event in batch:
            by_partition.setdefault(event.message.partition, []).append(event.message)
        for partition, messages in by_partition.items():
            entries: dict[bytes, bytes | None] = {}
            stored = self._db_for_partition(partition).get

            def known(key: bytes, entries: Any = entries, stored: Any = stored) -> Any:
                return entries[key] if key in entries else stored(key)

            for message in messages:
                entries.update(self._replay_entry(message.key, message.value, known))
            self.write(partition, entries, max(message.offset for message in messages))
