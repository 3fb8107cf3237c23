"""The index of what is due is read on from where it was read to, and misses nothing."""

from pathlib import Path
from time import perf_counter

from streams.context import due_prefix
from streams.due import DueIndex
from tests.unit.test_analysis_agent import PARTITION, open_contexts

FIRST, SECOND, THIRD = (bytes([number]) * 16 for number in (11, 12, 13))


class Index:
    """A real table, and how often which of its keys was due."""

    def __init__(self, directory: Path, at_once: int = 10) -> None:
        self.table = open_contexts(directory, [])
        self.due = DueIndex(self.table, at_once)

    def commit(self, *keys: bytes) -> None:
        self.table.commit(PARTITION, dict.fromkeys(keys, b""), [])
        self.due.committed(PARTITION, keys)

    def take(self, clock: int) -> list[bytes]:
        return [conversation for _, conversation in self.due.take(PARTITION, clock)]


def key(due: int, conversation: bytes) -> bytes:
    return due_prefix(due) + conversation


def test_what_is_due_is_told_once_in_its_order(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.commit(key(30, FIRST), key(10, SECOND), key(20, THIRD))
    assert index.take(10) == []
    assert index.take(11) == [SECOND]
    assert index.take(31) == [THIRD, FIRST]
    assert index.take(1_000) == []


def test_what_comes_late_and_is_due_already_is_told(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.commit(key(30, FIRST))
    assert index.take(100) == [FIRST]
    index.commit(key(20, SECOND), b"f" + THIRD)
    index.commit(key(200, THIRD))
    assert index.take(100) == [SECOND, FIRST]  # nobody has taken FIRST out
    assert index.take(201) == [THIRD]


def test_no_more_at_once_than_asked_for(tmp_path: Path) -> None:
    index = Index(tmp_path, at_once=2)
    index.commit(key(10, FIRST), key(10, SECOND), key(10, THIRD))
    assert [index.take(11), index.take(11), index.take(11)] == [[FIRST, SECOND], [THIRD], []]


def test_a_clock_that_goes_back_forgets_nothing(tmp_path: Path) -> None:
    index = Index(tmp_path)
    assert index.take(100) == []
    assert index.take(50) == []
    index.commit(key(100, FIRST))
    assert index.take(101) == [FIRST]


def test_a_partition_that_comes_back_is_read_from_its_beginning(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.commit(key(10, FIRST))
    assert index.take(11) == [FIRST]
    index.due.start_over()
    assert index.take(11) == [FIRST]


def test_a_scan_does_not_pass_over_what_was_deleted_behind_its_end(tmp_path: Path) -> None:
    """Tombstones cost about a tenth of a microsecond each: these would take some 10 ms."""
    table = open_contexts(tmp_path, [])
    keys = [key(at, FIRST) for at in range(100_000)]
    table.commit(PARTITION, dict.fromkeys(keys, b""), [])
    table.commit(PARTITION, dict.fromkeys(keys), [])

    def seconds(end: bytes) -> float:
        began = perf_counter()
        assert table.scan(PARTITION, b"f", end, 1) == []
        return perf_counter() - began

    assert 5 * min(seconds(b"g") for _ in range(5)) < min(seconds(b"r") for _ in range(5))
