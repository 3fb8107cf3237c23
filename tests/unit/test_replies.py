"""Replies find the captures that wait for them, whichever comes first."""

import asyncio
from types import SimpleNamespace

import pytest

from gateway import replies
from gateway.metrics import GatewayMetrics
from gateway.pace import SHARE, WEIGHT, Pace
from gateway.replies import Expected, Replies, Results, read_replies, result_at
from schemas.records import CaptureResult, RepliesRecord, replies_codec
from tests.unit.fakes import LONG_SECONDS, FakeConsumer, settled

RESULTS = [CaptureResult(2), CaptureResult(None), CaptureResult(0, ["user.id"])]
SHORT_SECONDS = 0.02


def replies_within(wait_seconds: float, keep_seconds: float) -> Replies:
    return Replies(wait_seconds, keep_seconds, Pace(0, 0), GatewayMetrics())


def expect(matched: Replies, partition: int, offset: int) -> Expected:
    return matched.expect(partition, offset, asyncio.get_running_loop().create_future())


def is_open(matched: Replies, partition: int) -> bool:
    """Whether the partition's breaker is open."""
    return partition in matched._late


def reply(offset: int, partition: int = 0) -> RepliesRecord:
    return RepliesRecord(partition, offset, RESULTS)


async def test_a_reply_after_the_acknowledgement_is_handed_over() -> None:
    matched = replies_within(LONG_SECONDS, LONG_SECONDS)
    expected = expect(matched, 0, 5)
    matched.receive(reply(6))
    matched.receive(reply(5, partition=1))
    assert not expected.soon.done()
    matched.receive(reply(5))
    assert await expected.soon == RESULTS
    assert await expected.results == RESULTS


async def test_a_reply_that_overtakes_the_acknowledgement_is_parked() -> None:
    matched = replies_within(LONG_SECONDS, LONG_SECONDS)
    matched.receive(reply(5))
    assert expect(matched, 0, 5).soon.result() == RESULTS
    assert not expect(matched, 0, 5).soon.done()


async def test_parked_replies_are_bounded_and_the_oldest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replies, "MAX_PARKED", 2)
    matched = replies_within(LONG_SECONDS, LONG_SECONDS)
    for offset in range(3):
        matched.receive(reply(offset))
    assert [expect(matched, 0, offset).soon.done() for offset in range(3)] == [False, True, True]


async def test_expected_replies_are_bounded_and_the_oldest_is_answered_provisionally(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replies, "MAX_EXPECTED", 2)
    matched = replies_within(SHORT_SECONDS, LONG_SECONDS)
    expected = [expect(matched, 0, offset) for offset in range(3)]
    for offset in range(3):
        matched.receive(reply(offset))
    assert [await each.soon for each in expected] == [None, RESULTS, RESULTS]


async def test_a_parked_reply_is_forgotten_after_the_wait() -> None:
    matched = replies_within(SHORT_SECONDS, LONG_SECONDS)
    matched.receive(reply(0))
    await expect(matched, 0, 1).soon
    assert not expect(matched, 0, 0).results.done()


async def test_a_late_reply_opens_the_breaker_of_its_partition_and_a_timely_one_closes_it() -> None:
    matched = replies_within(SHORT_SECONDS, LONG_SECONDS)
    expected = expect(matched, 0, 0)
    awaited = expect(matched, 0, 1)
    assert not is_open(matched, 0)
    assert await expected.soon is None
    assert await awaited.soon is None
    assert is_open(matched, 0)
    assert not is_open(matched, 1)

    matched.receive(reply(0))
    assert await expected.results == RESULTS
    assert is_open(matched, 0), "the reply came late, and another is awaited"

    timely = expect(matched, 0, 2)
    assert timely.soon.result() is None, "nobody waits while the breaker is open"
    matched.receive(reply(2))
    assert await timely.results == RESULTS
    assert not is_open(matched, 0)


async def test_the_last_reply_that_was_awaited_closes_the_breaker_though_it_is_late() -> None:
    matched = replies_within(SHORT_SECONDS, LONG_SECONDS)
    late = [expect(matched, 0, offset) for offset in range(2)]
    other = expect(matched, 1, 0)
    for expected in (*late, other):
        assert await expected.soon is None
    matched.receive(reply(0))
    assert is_open(matched, 0)
    matched.receive(reply(1))
    assert not is_open(matched, 0)
    assert is_open(matched, 1)


async def test_a_reply_that_is_forgotten_holds_no_breaker_open() -> None:
    matched = replies_within(SHORT_SECONDS, SHORT_SECONDS)
    await expect(matched, 0, 0).soon
    await asyncio.sleep(2 * SHORT_SECONDS)
    await expect(matched, 0, 1).soon
    matched.receive(reply(1))
    assert not is_open(matched, 0)


async def test_a_reply_that_was_parked_closes_the_breaker() -> None:
    matched = replies_within(SHORT_SECONDS, LONG_SECONDS)
    await expect(matched, 0, 0).soon
    matched.receive(reply(1))
    expect(matched, 0, 1)
    assert not is_open(matched, 0)


async def test_a_reply_may_be_asked_for_until_it_is_forgotten() -> None:
    matched = replies_within(SHORT_SECONDS, SHORT_SECONDS)
    forgotten = expect(matched, 0, 0)
    await forgotten.soon
    kept = expect(matched, 0, 1)
    matched.receive(reply(0))
    matched.receive(reply(1))
    assert not forgotten.results.done()
    assert kept.results.done()


async def test_replies_are_kept_at_least_as_long_as_the_default_wait() -> None:
    matched = replies_within(LONG_SECONDS, 0)
    first = expect(matched, 0, 0)
    expect(matched, 0, 1)
    matched.receive(reply(0))
    assert first.soon.done()


@pytest.mark.parametrize(
    ("reply", "index", "expected"),
    [
        (None, 0, None),
        ([], 0, None),
        ([CaptureResult(1)], 0, CaptureResult(1)),
        ([CaptureResult(1)], 1, None),
    ],
)
def test_a_reply_that_lacks_a_capture_says_nothing_of_it(
    reply: Results | None, index: int, expected: CaptureResult | None
) -> None:
    assert result_at(reply, index) == expected


async def test_an_undecodable_reply_is_passed_over() -> None:
    received: list[RepliesRecord] = []
    values = [b"\xffnot a reply", None, replies_codec.encode(reply(3))]
    records = [SimpleNamespace(value=value, offset=at) for at, value in enumerate(values)]
    consumer = FakeConsumer([{}, {"a partition": records}])
    reading = asyncio.create_task(read_replies(consumer, received.append, Pace(0, 0)))
    await consumer.at_end.wait()
    reading.cancel()
    await settled()
    assert received == [reply(3)]


async def test_who_waits_when_the_gateway_ends_is_told_that_nothing_comes() -> None:
    matched = replies_within(LONG_SECONDS, LONG_SECONDS)
    waiting = expect(matched, 0, 0)
    matched.give_up()
    assert (await waiting.soon, await waiting.results) == (None, None)
    assert not is_open(matched, 0)


async def test_the_pace_follows_what_replies_take() -> None:
    pace = Pace(0, 1)
    matched = Replies(SHORT_SECONDS, LONG_SECONDS, pace, GatewayMetrics())
    expected = expect(matched, 0, 1)
    assert await expected.soon is None
    # Where none comes at all, a linger would help nobody; a late one counts when it is there.
    assert pace.linger_seconds == 0
    matched.receive(reply(1))
    late = pace.linger_seconds
    assert late >= SHARE * WEIGHT * SHORT_SECONDS
    for offset in range(100):
        matched.receive(reply(offset, partition=1))
        expect(matched, 1, offset)
    assert pace.linger_seconds < late / 1000


def test_the_linger_is_a_share_of_what_replies_take_within_bounds() -> None:
    pace = Pace(0.001, 0.02)
    found = []
    for seconds in (0.0, 0.02, 1.0, 0.0):
        for _ in range(100):
            pace.replied(seconds)
        found.append(pace.linger_seconds)
    assert found == pytest.approx([0.001, 0.01, 0.02, 0.001], rel=1e-3)
    assert Pace(0.05, 0.02).linger_seconds == 0.05


def test_replies_are_let_collect_only_where_captures_are() -> None:
    pace = Pace(0.001, 0.02)
    assert pace.reading_seconds == 0
    for _ in range(100):
        pace.replied(1.0)
    assert pace.reading_seconds == pytest.approx(SHARE * 0.019)


def test_the_linger_follows_the_rate_before_the_worker_lags() -> None:
    pace = Pace(0.001, 0.02)
    found = []
    for second, per_second in enumerate((0, 600, 1_500, 5_000, 1_125, 0)):
        for quarter in range(4):
            pace.sent(per_second // 4, second + quarter / 4 + 0.25)
        found.append(round(pace.linger_seconds, 4))
    assert found == [0.001, 0.001, 0.01, 0.01, 0.005, 0.001]
    for _ in range(100):
        pace.replied(0.03)
    assert pace.linger_seconds == pytest.approx(0.015, rel=1e-3)
    assert Pace(0.001, 0.005).linger_seconds == 0.001
