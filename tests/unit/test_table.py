"""The conversations table, over a real store and without a broker."""

from pathlib import Path
from types import SimpleNamespace

import faust.types
import pytest

from schemas import topics
from schemas.codec import UndecodableError
from streams.entries import changelog_ids_key, introduced_codec, message_prefix
from streams.table import SecondWriterError, WorkerTable
from tests.unit.fakes import Failures
from tests.unit.tables import open_table, store_of


def persisted(table: WorkerTable, partition: int) -> int | None:
    tp = faust.types.TP(table.changelog_topic_name, partition)
    offset: int | None = store_of(table).persisted_offset(tp)
    return offset


@pytest.fixture
def table(tmp_path: Path) -> WorkerTable:
    return open_table(tmp_path)


def test_its_changelog_is_the_topic_that_migrate_makes(table: WorkerTable) -> None:
    assert table.changelog_topic_name == topics.CONVERSATIONS_CHANGELOG


def test_what_is_not_there_is_not_read(table: WorkerTable) -> None:
    assert table.read(0, [b"a", b"b"]) == {}
    assert table.read(0, []) == {}


def test_staged_entries_are_read_but_not_stored(table: WorkerTable) -> None:
    table.stage(0, {b"a": b"1"})
    assert table.read(0, [b"a", b"b"]) == {b"a": b"1"}
    assert table.read(1, [b"a"]) == {}
    assert store_of(table).read(0, [b"a"]) == [None]
    assert persisted(table, 0) is None


def test_committed_entries_are_stored_with_the_offset_that_they_reach(
    table: WorkerTable,
) -> None:
    table.stage(0, {b"a": b"1", b"b": b"2"})
    table.commit(0, {b"a": b"1", b"b": b"2"}, [(0, 3), (3, 1)])
    assert store_of(table).read(0, [b"b", b"a"]) == [b"2", b"1"]
    assert table.read(0, [b"a", b"b"]) == {b"a": b"1", b"b": b"2"}
    assert (persisted(table, 0), persisted(table, 1)) == (3, None)


def test_a_commit_leaves_newer_staged_entries_as_they_are(table: WorkerTable) -> None:
    older, newer = {b"a": b"older"}, {b"a": b"newer"}
    table.stage(0, older)
    table.stage(0, newer)
    table.commit(0, older, [(0, 1)])
    assert table.read(0, [b"a"]) == newer
    table.commit(0, newer, [(1, 1)])
    assert table.read(0, [b"a"]) == newer
    assert store_of(table).read(0, [b"a"]) == [b"newer"]


@pytest.mark.parametrize("acknowledged", [[(1, 1)], [(-1, 1)], [(0, 2), (3, 1)], [(0, 2), (1, 1)]])
def test_an_offset_that_is_not_the_next_one_stops_the_writing(
    table: WorkerTable, acknowledged: list[tuple[int, int]]
) -> None:
    with pytest.raises(SecondWriterError, match="changelog partition 0"):
        table.commit(0, {b"a": b"1"}, acknowledged)
    assert store_of(table).read(0, [b"a"]) == [None]
    assert persisted(table, 0) is None


def test_a_second_writer_is_noticed_in_every_later_commit(table: WorkerTable) -> None:
    table.commit(0, {b"a": b"1"}, [(0, 2)])
    with pytest.raises(SecondWriterError, match="offset 3, expected 2"):
        table.commit(0, {b"a": b"2"}, [(3, 1)])
    assert persisted(table, 0) == 1


def test_writing_goes_on_where_recovery_ended(tmp_path: Path) -> None:
    table = open_table(tmp_path, recovered=41)
    with pytest.raises(SecondWriterError):
        table.commit(0, {b"a": b"1"}, [(41, 1)])
    table.commit(0, {b"a": b"1"}, [(42, 5)])
    assert persisted(table, 0) == 46


def test_after_a_rebalance_nothing_staged_is_read(table: WorkerTable) -> None:
    table.commit(0, {b"a": b"1"}, [(0, 1)])
    table.stage(0, {b"a": b"2", b"b": b"2"})
    table.forget_positions()
    assert table.read(0, [b"a", b"b"]) == {b"a": b"1"}


def event(offset: int, value: bytes) -> SimpleNamespace:
    """Return a changelog event of partition 0, as Faust hands it over."""
    key = changelog_ids_key(bytes(16), offset << 7)
    message = SimpleNamespace(partition=0, offset=offset, key=key, value=value)
    return SimpleNamespace(message=message)


def test_a_recovery_writes_entries_with_the_offset_that_they_reach(
    table: WorkerTable,
) -> None:
    introduced = [introduced_codec.encode([(0, name)]) for name in (b"a", b"b", b"a")]
    table.apply_changelog_batch([event(at, value) for at, value in enumerate(introduced)])
    keys = [message_prefix(bytes(16)) + name for name in (b"a", b"b")]
    assert store_of(table).read(0, keys) == [(2 << 7).to_bytes(8), (1 << 7).to_bytes(8)]
    assert persisted(table, 0) == 2


async def test_an_entry_that_cannot_be_read_ends_the_recovery(tmp_path: Path) -> None:
    failures = Failures()
    table = open_table(tmp_path, on_failure=failures)
    table.apply_changelog_batch([event(0, b"\xff of another release")])
    assert isinstance(await failures.seen.get(), UndecodableError)
    assert persisted(table, 0) is None
