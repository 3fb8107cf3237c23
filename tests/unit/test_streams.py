"""What keeps a worker's records in order, and each acked only when it is done."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from streams import lanes
from streams.continuity import Continuity, RecordsLostError
from streams.lanes import Lanes, Received
from streams.window import Windows
from tests.unit.fakes import Failures, settled

Pending = asyncio.Future[None]


def pending() -> Pending:
    return asyncio.get_running_loop().create_future()


class Log:
    """Remembers which records are done, by number."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def mark(self, number: int) -> Callable[[], None]:
        return lambda: self.done.append(number)


def failed(error: Exception) -> Pending:
    future = pending()
    future.set_exception(error)
    return future


async def test_records_are_done_in_order_whichever_is_acknowledged_first() -> None:
    log, failures = Log(), Failures()
    windows = Windows(10, failures)
    written = [pending() for _ in range(3)]
    for number, acknowledgement in enumerate(written):
        await windows.add(0, [acknowledgement], log.mark(number))
    for acknowledgement, done in zip(reversed(written), ([], [], [0, 1, 2]), strict=True):
        acknowledgement.set_result(None)
        await settled()
        assert log.done == done
    await windows.close()


async def test_a_record_is_done_only_when_all_it_wrote_is_acknowledged() -> None:
    log = Log()
    windows = Windows(10, Failures())
    written = [pending() for _ in range(3)]
    await windows.add(0, written, log.mark(1))
    for acknowledgement in reversed(written):
        await settled()
        assert log.done == []
        acknowledgement.set_result(None)
    await windows.drained()
    assert log.done == [1]
    await windows.close()


async def test_a_record_that_wrote_nothing_waits_for_those_before_it() -> None:
    log = Log()
    windows = Windows(10, Failures())
    first = pending()
    await windows.add(0, [first], log.mark(1))
    await windows.add(0, [], log.mark(2))
    await settled()
    assert log.done == []
    first.set_result(None)
    await windows.drained()
    assert log.done == [1, 2]
    await windows.close()


async def test_partitions_are_done_independently() -> None:
    log = Log()
    windows = Windows(1, Failures())
    await windows.add(0, [pending()], log.mark(0))
    await windows.add(1, [], log.mark(1))
    await settled()
    assert log.done == [1]
    await windows.close()


async def test_a_full_window_blocks_until_its_first_record_is_done() -> None:
    limit = 3
    windows = Windows(limit, Failures())
    first = pending()
    adding = [
        asyncio.create_task(windows.add(0, [first if not number else pending()], lambda: None))
        for number in range(limit + 5)
    ]
    await settled()
    let_in = sum(task.done() for task in adding)
    assert limit <= let_in <= limit + 1
    first.set_result(None)
    await settled()
    assert sum(task.done() for task in adding) == let_in + 1
    for task in adding:
        task.cancel()
    await windows.close()


async def test_after_a_failed_write_nothing_later_is_acked() -> None:
    log, failures = Log(), Failures()
    windows = Windows(10, failures)
    error = ConnectionError("broker")
    await windows.add(0, [], log.mark(0))
    await windows.add(0, [failed(error)], log.mark(1))
    await windows.add(0, [], log.mark(2))
    assert await failures.seen.get() is error
    await settled()
    assert log.done == [0]
    assert failures.seen.empty()
    await windows.close()


async def test_after_a_failed_commit_nothing_later_is_acked() -> None:
    log, failures = Log(), Failures()
    windows = Windows(10, failures)

    def commit() -> None:
        raise ArithmeticError("second writer")

    await windows.add(0, [], commit)
    await windows.add(0, [], log.mark(1))
    assert isinstance(await failures.seen.get(), ArithmeticError)
    await settled()
    assert log.done == []
    await windows.close()


async def test_draining_waits_for_every_partition() -> None:
    windows = Windows(10, Failures())
    written = [pending(), pending()]
    for partition, acknowledgement in enumerate(written):
        await windows.add(partition, [acknowledgement], lambda: None)
    draining = asyncio.create_task(windows.drained())
    for acknowledgement in written:
        await settled()
        assert not draining.done()
        acknowledgement.set_result(None)
    await draining
    await windows.close()


async def test_windows_drain_while_a_partition_gets_its_first_record() -> None:
    windows = Windows(10, Failures())
    first = pending()
    await windows.add(0, [first], lambda: None)
    draining = asyncio.create_task(windows.drained())
    await settled()
    await windows.add(1, [], lambda: None)
    first.set_result(None)
    try:
        await draining
    finally:
        await windows.close()


class Processing:
    """Takes gulps; each waits until the test lets it go on."""

    def __init__(self) -> None:
        self.gulps: asyncio.Queue[tuple[int, list[int]]] = asyncio.Queue()
        self.going_on = asyncio.Semaphore(0)
        self.failing: Exception | None = None

    async def __call__(self, partition: int, records: list[Received]) -> None:
        self.gulps.put_nowait((partition, [record.offset for record in records]))
        await self.going_on.acquire()
        if self.failing is not None:
            raise self.failing


def received(offset: int, size: int = 1) -> Received:
    return Received(offset, bytes(size), lambda: None)


@pytest.fixture
def processing() -> Processing:
    return Processing()


async def test_a_lane_hands_on_all_that_queued_up_in_order(processing: Processing) -> None:
    made = Lanes(processing, Failures())
    await made.put(0, received(0))
    assert await processing.gulps.get() == (0, [0])
    for offset in range(1, 6):
        await made.put(0, received(offset))
    await settled()
    assert processing.gulps.empty()
    processing.going_on.release()
    assert await processing.gulps.get() == (0, [1, 2, 3, 4, 5])
    processing.going_on.release()
    await made.drained()


async def test_a_gulp_is_bounded_in_bytes(processing: Processing) -> None:
    made = Lanes(processing, Failures(), max_bytes=4_000)
    await made.put(0, received(0))
    await processing.gulps.get()
    for offset in range(1, 6):
        await made.put(0, received(offset, 3_000))
    gulps = []
    for _ in range(3):
        processing.going_on.release()
        gulps.append((await processing.gulps.get())[1])
    assert gulps == [[1, 2], [3, 4], [5]]
    processing.going_on.release()
    await made.drained()


async def test_a_full_lane_blocks_and_no_other_lane_does(processing: Processing) -> None:
    made = Lanes(processing, Failures())
    await made.put(0, received(0))
    await processing.gulps.get()
    for offset in range(1, lanes.MAX_RECORDS + 1):
        await made.put(0, received(offset))
    blocked = asyncio.create_task(made.put(0, received(lanes.MAX_RECORDS + 1)))
    await settled()
    assert not blocked.done()
    await made.put(1, received(0))
    assert await processing.gulps.get() == (1, [0])
    for _ in range(2):
        processing.going_on.release()
    await blocked
    _, offsets = await processing.gulps.get()
    processing.going_on.release()
    processing.going_on.release()
    await made.drained()
    assert offsets[0] == 1
    assert offsets == sorted(offsets)


async def test_after_a_failure_a_lane_passes_no_record_over(processing: Processing) -> None:
    failures = Failures()
    made = Lanes(processing, failures)
    processing.failing = ArithmeticError("bug")
    processing.going_on.release()
    await made.put(0, received(0))
    await made.put(0, received(1))
    assert await failures.seen.get() is processing.failing
    await made.put(0, received(2))
    await settled()
    assert processing.gulps.qsize() == 1


async def test_lanes_drain_when_every_record_is_processed(processing: Processing) -> None:
    made = Lanes(processing, Failures())
    await made.drained()
    for partition in (0, 1):
        await made.put(partition, received(0))
    draining = asyncio.create_task(made.drained())
    for _ in range(2):
        await settled()
        assert not draining.done()
        processing.going_on.release()
    await draining


async def test_lanes_drain_while_a_partition_gets_its_first_record(
    processing: Processing,
) -> None:
    made = Lanes(processing, Failures())
    await made.put(0, received(0))
    draining = asyncio.create_task(made.drained())
    await settled()
    await made.put(1, received(0))
    for _ in range(2):
        processing.going_on.release()
    await draining


async def test_a_nudge_has_an_idle_lane_processed_without_a_record(processing: Processing) -> None:
    made = Lanes(processing, Failures())
    made.nudge(0)
    assert await processing.gulps.get() == (0, [])
    await made.put(1, received(7))
    assert await processing.gulps.get() == (1, [7])
    for _ in range(2):
        processing.going_on.release()
    await made.drained()


async def test_a_nudge_is_nothing_where_something_is_queued(processing: Processing) -> None:
    made = Lanes(processing, Failures())
    await made.put(0, received(0))
    assert await processing.gulps.get() == (0, [0])
    await made.put(0, received(1))
    for _ in range(3):
        made.nudge(0)
    assert made.waiting == 1
    processing.going_on.release()
    assert await processing.gulps.get() == (0, [1])
    for _ in range(3):
        made.nudge(0)
    for _ in range(2):
        processing.going_on.release()
    assert await processing.gulps.get() == (0, [])
    await made.drained()
    assert processing.gulps.empty()


async def test_records_go_with_the_nudge_that_they_found_queued(processing: Processing) -> None:
    made = Lanes(processing, Failures())
    await made.put(0, received(0))
    await processing.gulps.get()
    made.nudge(0)
    await made.put(0, received(1))
    await made.put(0, received(2))
    for _ in range(2):
        processing.going_on.release()
    assert await processing.gulps.get() == (0, [1, 2])
    await made.drained()
    assert processing.gulps.empty()


async def test_what_waits_is_what_no_gulp_has_taken(processing: Processing) -> None:
    made = Lanes(processing, Failures())
    assert made.waiting == 0
    for partition in (0, 1):
        await made.put(partition, received(0))
        await processing.gulps.get()
    assert made.waiting == 0
    for partition, count in ((0, 2), (1, 3)):
        for offset in range(count):
            await made.put(partition, received(offset))
    assert made.waiting == 5
    for _ in range(4):
        processing.going_on.release()
    await made.drained()
    assert made.waiting == 0


def test_records_that_follow_each_other_are_welcome_wherever_they_begin() -> None:
    continuity = Continuity("topic")
    for offset in (7, 8, 9):
        continuity.check(0, offset)
    continuity.check(1, 100)


def test_a_replay_is_welcome() -> None:
    continuity = Continuity("topic")
    for offset in (7, 8, 5, 6, 7, 8, 9):
        continuity.check(0, offset)


def test_a_hole_is_an_error_that_names_what_is_missing_and_what_to_do() -> None:
    continuity = Continuity("topic")
    continuity.check(3, 7)
    with pytest.raises(RecordsLostError, match="topic partition 3: records 8 to 10 are missing"):
        continuity.check(3, 11)
    with pytest.raises(RecordsLostError, match="offset to 11"):
        continuity.check(3, 11)


def test_a_hole_before_the_first_record_is_one_too() -> None:
    continuity = Continuity("topic")
    continuity.start(0, 5)
    with pytest.raises(RecordsLostError):
        continuity.check(0, 6)
    continuity.check(0, 5)


def test_after_a_rebalance_records_are_expected_from_where_reading_goes_on() -> None:
    continuity = Continuity("topic")
    continuity.check(0, 5)
    continuity.start(0, 50)
    continuity.check(0, 50)


async def test_a_full_lane_stops_its_partitions_flow_and_blocks_nobody() -> None:
    flow: list[tuple[str, int]] = []
    going_on, processed = asyncio.Event(), list[int]()

    async def process(_: int, records: list[Received]) -> None:
        await going_on.wait()
        processed.extend(record.offset for record in records)

    made = Lanes(
        process,
        Failures(),
        SimpleNamespace(
            stop=lambda partition: flow.append(("stop", partition)),
            go_on=lambda partition: flow.append(("go on", partition)),
        ),
    )
    offsets = range(2 * lanes.MAX_RECORDS)
    async with asyncio.timeout(5):
        for offset in offsets:
            await made.put(3, Received(offset, b"", lambda: None))
    assert set(flow) == {("stop", 3)}
    assert made.waiting >= lanes.MAX_RECORDS
    going_on.set()
    await made.drained()
    assert processed == list(offsets)
    assert flow[-1] == ("go on", 3)
