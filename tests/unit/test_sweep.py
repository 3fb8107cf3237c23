"""Forgotten ids: removed a few at a time, and never one that was brought anew."""

from pathlib import Path

from schemas import topics
from schemas.records import Captured, CapturedMessage, encode
from streams.entries import DUE, IDS, MESSAGE, STATE
from streams.forgetting import DAY_MICROSECONDS
from streams.sweep import IDS_AT_ONCE
from tests.unit.fakes import Sent
from tests.unit.test_conversations import PARTITION, Worker, of, record, replies

DAYS = 8


def capture(conversation: int, day: float, *ids: str, remember_days: int = DAYS) -> bytes:
    """Return a record of one capture."""
    messages = [CapturedMessage(message_id, "user", "hi", 3, True) for message_id in ids]
    return record(
        encode(
            Captured(
                bytes(16), conversation.to_bytes(16), "external", round(day * DAY_MICROSECONDS),
                True, messages, {}, remember_days,
            )
        )
    )  # fmt: skip


def stored(sent: list[Sent]) -> list[int | None]:
    return [result.stored for reply in replies(sent) for result in reply.results]


def kept(worker: Worker, kind: bytes) -> int:
    """Return how many entries of a kind the store holds."""
    return len(worker.table.scan(PARTITION, kind, kind + b"\xff" * 60, 1_000_000))


def tombstones(sent: list[Sent]) -> int:
    return sum(
        key[:1] == IDS and value is None
        for each in of(sent, topics.CONVERSATIONS_CHANGELOG)
        for key, value in each.entries
    )


async def settle(worker: Worker) -> None:
    await worker.failures.unless(worker.windows.drained())


async def test_ids_go_when_what_knew_them_is_not_read_again_and_the_state_stays(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    await worker.take(0, capture(1, 100, "a", "b"), capture(2, 100, "a", remember_days=0))
    await settle(worker)
    assert tombstones(await worker.take(2, capture(3, 117.9, "a"))) == 0
    assert tombstones(await worker.take(3, capture(3, 118.1, "b"))) == 1
    await worker.drained()
    assert [kept(worker, kind) for kind in (STATE, MESSAGE)] == [3, 3]
    assert kept(worker, DUE) == 2  # of the third conversation


async def test_an_id_that_comes_again_after_the_days_is_new_and_not_before(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    answers = []
    for offset, day in enumerate((100, 108, 108.1, 116, 117)):
        answers += stored(await worker.take(offset, capture(1, day, "a")))
    await worker.drained()
    assert answers == [1, 0, 1, 0, 1]


async def test_the_days_of_the_last_change_count_whatever_was_set_since(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    answers = []
    for offset, (day, days) in enumerate(((100, 0), (200, 8), (300, 8))):
        answers += stored(await worker.take(offset, capture(1, day, "a", remember_days=days)))
    answers += stored(await worker.take(3, capture(1, 300, "b", remember_days=8)))
    answers += stored(await worker.take(4, capture(1, 310, "a", "b", remember_days=0)))
    answers += stored(await worker.take(5, capture(1, 900, "a", "b", remember_days=8)))
    await worker.drained()
    assert answers == [1, 0, 0, 1, 2, 0]


async def test_a_sweep_spares_an_id_that_was_brought_anew_and_is_on_its_way(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    await worker.take(0, capture(1, 100, "a"))
    await settle(worker)
    worker.producer.acknowledging = False
    sent = await worker.take(1, capture(1, 110.5, "a", remember_days=0))
    assert stored(sent) == [1]
    sent += await worker.take(2, capture(2, 120.2, "a"))
    offset = 2
    for each in sent:
        is_entries = each.topic == topics.CONVERSATIONS_CHANGELOG
        each.acknowledge(offset if is_entries else 0)
        offset += len(each.entries) if is_entries else 0
    await settle(worker)
    worker.producer.acknowledging = True
    assert stored(await worker.take(3, capture(1, 120.2, "a"))) == [0]
    await worker.drained()


async def test_what_was_forgotten_before_ids_are_kept_for_ever_goes_too(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    await worker.take(0, capture(1, 100, "a"), capture(2, 100, "a"))
    await worker.take(1, capture(1, 110, "b", remember_days=0))
    await settle(worker)
    await worker.take(2, capture(3, 118.1, "x"))
    await settle(worker)
    assert (kept(worker, MESSAGE), kept(worker, DUE)) == (3, 2)
    await worker.take(3, capture(3, 120, "x"))
    await settle(worker)
    assert (kept(worker, MESSAGE), kept(worker, DUE)) == (2, 1)
    await worker.drained()


async def test_a_conversation_that_changes_while_it_is_swept_takes_no_other_with_it(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    ids = [f"{number}" for number in range(100)]
    for first in range(0, IDS_AT_ONCE, 100):
        await worker.take(first, capture(1, 100, *(f"{first}-{each}" for each in ids)))
    await worker.take(IDS_AT_ONCE, capture(1, 100, *ids), capture(2, 100, *ids))
    await settle(worker)
    await worker.take(IDS_AT_ONCE + 1, capture(3, 118, "x"))
    await settle(worker)
    assert kept(worker, MESSAGE) == 2 * len(ids) + 1
    sent = await worker.take(IDS_AT_ONCE + 2, capture(1, 118, "y"))
    await settle(worker)
    assert tombstones(sent) == 1
    assert kept(worker, MESSAGE) == len(ids) + 2
    await worker.drained()


async def test_a_long_conversation_is_swept_in_parts(tmp_path: Path) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    captures = [
        capture(1, 100, *(f"{number}-{index}" for index in range(100))) for number in range(35)
    ]
    await worker.take(0, *captures)
    await settle(worker)
    assert kept(worker, MESSAGE) == 3_500
    left = []
    for offset in range(35, 40):
        await worker.take(offset, capture(2, 120, "x"))
        await settle(worker)
        left.append(kept(worker, MESSAGE) - 1)
    await worker.drained()
    assert left == [3_500 - IDS_AT_ONCE * times for times in range(1, 4)] + [0, 0]
    assert kept(worker, DUE) == 1


async def test_where_nothing_is_forgotten_nothing_is_looked_at_but_once_a_day(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, acknowledging=True)
    scans = []
    scan = worker.table.scan

    def counting(partition: int, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        scans.append(start)
        return scan(partition, start, end, limit)

    worker.table.scan = counting  # type: ignore[method-assign]
    for offset in range(50):
        await worker.take(offset, capture(offset, 100 + offset / 25, "a", remember_days=0))
    await worker.drained()
    assert len(scans) == 2
