"""Tables over a real store and without a broker."""

from collections.abc import Callable
from pathlib import Path

import faust.types

from schemas import sizes, topics
from streams.app import make_app
from streams.entries import replay_entry
from streams.store import TableStore
from streams.table import WorkerTable


def fail(error: BaseException) -> None:
    raise AssertionError from error


def open_table(
    directory: Path,
    recovered: int = -1,
    on_failure: Callable[[BaseException], None] = fail,
    partitions: int = 2,
    cache_bytes: int = 16 * sizes.MIB,
) -> WorkerTable:
    """Return a table whose partitions' changelogs end at the recovered offset."""
    app = make_app(topics.CONVERSATIONS_GROUP, "127.0.0.1:1", partitions, directory, "instance")
    app.finalize()
    table = WorkerTable(
        app,
        on_failure,
        cache_bytes,
        replay_entry,
        name=topics.CONVERSATIONS_TABLE,
        partitions=partitions,
        beacon=app.tables.beacon,
    )
    app.tables.add(table)
    for partition in range(partitions):
        tp = faust.types.TP(table.changelog_topic_name, partition)
        app.tables.recovery.active_highwaters[tp] = recovered
    return table


def store_of(table: WorkerTable) -> TableStore:
    store: TableStore = table.data
    return store
