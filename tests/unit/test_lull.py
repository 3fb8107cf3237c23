"""When records are taken to come no more."""

import asyncio
from collections.abc import Awaitable

from streams import lanes
from streams.lanes import Lanes, Received
from streams.lull import MOST_TURNS, QUIET_TURNS, Lull
from tests.unit.fakes import Failures

APART = QUIET_TURNS // 2
"""Turns between records that come one after the other."""
WAKING_TURNS = 5
"""Until who waits has begun, and has gone on."""


async def turns_of(waiting: Awaitable[None]) -> int:
    """Return how many turns of the event loop it waits."""
    task = asyncio.ensure_future(waiting)
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return turns


async def arrive(made: Lull, records: int) -> None:
    for _ in range(records):
        made.came()
        for _ in range(APART):
            await asyncio.sleep(0)


async def test_where_nothing_comes_it_takes_a_few_turns() -> None:
    assert QUIET_TURNS <= await turns_of(Lull().wait()) <= QUIET_TURNS + WAKING_TURNS


async def test_it_lasts_as_long_as_records_come_one_after_the_other() -> None:
    made = Lull()
    arriving = asyncio.create_task(arrive(made, 5))
    turns = await turns_of(made.wait())
    assert arriving.done()
    assert turns >= 4 * APART + QUIET_TURNS


async def test_records_without_end_keep_nobody_waiting_for_ever() -> None:
    made = Lull()
    arriving = asyncio.create_task(arrive(made, MOST_TURNS))
    turns = await turns_of(made.wait())
    assert not arriving.done()
    assert MOST_TURNS <= turns <= MOST_TURNS + WAKING_TURNS
    await arriving


async def test_all_who_wait_go_on_together() -> None:
    made = Lull()
    first = asyncio.create_task(made.wait())
    for _ in range(APART):
        await asyncio.sleep(0)
    assert not first.done()
    await made.wait()
    assert first.done()


async def test_a_lane_takes_along_what_comes_some_turns_later_and_lanes_begin_together() -> None:
    gulps: list[tuple[int, list[int]]] = []

    async def process(partition: int, records: list[Received]) -> None:
        gulps.append((partition, [record.offset for record in records]))

    made = Lanes(process, Failures())
    for partition, offset in ((0, 5), (1, 9), (0, 6), (1, 10), (0, 7)):
        assert not gulps
        await made.put(partition, Received(offset, b"", lambda: None))
        for _ in range(APART):
            await asyncio.sleep(0)
    await made.drained()
    assert gulps == [(0, [5, 6, 7]), (1, [9, 10])]


async def test_one_that_gives_up_takes_no_other_with_it() -> None:
    made = Lull()
    first, second = (asyncio.create_task(made.wait()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()


async def test_a_full_lane_ends_the_lull() -> None:
    """Who puts into it is blocked until it is taken from, and brings nothing meanwhile."""
    gulps: list[int] = []

    async def process(_partition: int, records: list[Received]) -> None:
        gulps.append(len(records))

    made = Lanes(process, Failures())

    async def put_all() -> None:
        for offset in range(lanes.MAX_RECORDS + 1):
            await made.put(0, Received(offset, b"", lambda: None))

    assert await turns_of(put_all()) < MOST_TURNS / 2
    await made.drained()
    assert sum(gulps) == lanes.MAX_RECORDS + 1
