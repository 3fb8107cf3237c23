"""The publisher: what becomes a record, and what a capture that waits for it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka.errors import KafkaConnectionError

from gateway import publisher
from gateway.errors import RefusedError
from gateway.metrics import GatewayMetrics
from gateway.pace import Pace
from gateway.publisher import Published, Publisher
from gateway.replies import Soon
from gateway.sender import UNKNOWN_OFFSET, Sender
from schemas import sizes, topics
from schemas.positions import MAX_CAPTURES_PER_RECORD
from schemas.records import CaptureResult, CapturesRecord, captures_codec
from tests.unit.fakes import LONG_SECONDS, FakeProducer, FatalError, Sent, settled

CONVERSATION = bytes(16)
OTHER = b"\0\0\0\1" + bytes(12)
"""In the other partition of two."""

Make = Callable[..., Publisher[tuple[int, int]]]


def acknowledged(partition: int, offset: int, soon: Soon) -> tuple[int, int]:
    soon.set_result([CaptureResult(offset)])
    return partition, offset


class Brokers:
    """Makes producers; what any of them sends comes out of one queue."""

    def __init__(self) -> None:
        self.made: list[FakeProducer] = []
        self.sent: asyncio.Queue[Sent] = asyncio.Queue()
        self.unreachable = False
        self.generation = 3
        self.reached = asyncio.Event()
        self.reached.set()

    async def make(self) -> FakeProducer:
        if self.unreachable:
            raise KafkaConnectionError("no broker")
        await self.reached.wait()
        self.made.append(FakeProducer())
        self.made[-1].sent = self.sent
        return self.made[-1]


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture
async def make(brokers: Brokers) -> AsyncIterator[Make]:
    made: list[Publisher[tuple[int, int]]] = []

    def make_one(
        linger_seconds: float = 0.0, timeout_seconds: float = LONG_SECONDS
    ) -> Publisher[tuple[int, int]]:
        made.append(
            Publisher(
                Sender(
                    brokers.make,
                    generation=lambda: brokers.generation,
                    reply_partition=7,
                    stop_seconds=timeout_seconds,
                ),
                acknowledged,
                partitions=2,
                pace=Pace(linger_seconds, linger_seconds),
                timeout_seconds=timeout_seconds,
                metrics=GatewayMetrics(),
            )
        )
        return made[-1]

    yield make_one
    for each in made:
        each._timeout_seconds = 0.01
        await each.close()


def record_of(sent: Sent) -> CapturesRecord:
    return captures_codec.decode(sent.value)


async def refusal_of(published: Published[tuple[int, int]]) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        await published.acknowledged
    with pytest.raises(RefusedError):
        await published.soon
    assert refused.value.status == 503
    assert refused.value.headers is not None
    assert int(refused.value.headers["Retry-After"]) > 0
    return refused.value


async def test_a_capture_is_answered_when_its_record_is_acknowledged(
    make: Make, brokers: Brokers
) -> None:
    published, index = make().publish(CONVERSATION, b"frame")
    sent = await brokers.sent.get()
    assert (sent.topic, sent.partition) == (topics.CAPTURES, 0)
    assert record_of(sent) == CapturesRecord(3, 7, [b"frame"])
    await settled()
    assert not published.acknowledged.done()
    sent.acknowledge(41)
    assert (await published.acknowledged, index) == ((0, 41), 0)
    assert await published.soon == [CaptureResult(41)]


async def test_captures_collect_while_a_record_is_on_its_way(make: Make, brokers: Brokers) -> None:
    publish = make().publish
    publish(CONVERSATION, b"1")
    first = await brokers.sent.get()
    collected = [publish(CONVERSATION, frame) for frame in (b"2", b"3")]
    await settled()
    assert brokers.sent.empty()
    first.acknowledge(0)
    second = await brokers.sent.get()
    assert record_of(second).captures == [b"2", b"3"]
    second.acknowledge(1)
    assert [(await published.acknowledged, index) for published, index in collected] == [
        ((0, 1), 0),
        ((0, 1), 1),
    ]


async def test_partitions_do_not_wait_for_each_other(make: Make, brokers: Brokers) -> None:
    publish = make().publish
    publish(CONVERSATION, b"1")
    first = await brokers.sent.get()
    published, _ = publish(OTHER, b"2")
    second = await brokers.sent.get()
    assert (first.partition, second.partition) == (0, 1)
    second.acknowledge(9)
    assert await published.acknowledged == (1, 9)


async def test_captures_of_the_linger_share_a_record(make: Make, brokers: Brokers) -> None:
    publish = make(linger_seconds=0.01).publish
    indexes = [publish(CONVERSATION, frame)[1] for frame in (b"1", b"2", b"3")]
    await settled()
    assert not brokers.made
    assert record_of(await brokers.sent.get()).captures == [b"1", b"2", b"3"]
    assert indexes == [0, 1, 2]


async def test_a_full_record_does_not_linger(make: Make, brokers: Brokers) -> None:
    publish = make(linger_seconds=LONG_SECONDS).publish
    large = b"x" * (sizes.BATCH - 1)
    publish(CONVERSATION, large)
    await settled()
    assert not brokers.made
    publish(CONVERSATION, b"y")
    publish(CONVERSATION, b"z")
    await settled()
    assert record_of(await brokers.sent.get()).captures == [large, b"y"]


async def test_a_record_holds_no_more_captures_than_positions_can_name(
    make: Make, brokers: Brokers
) -> None:
    publish = make(linger_seconds=LONG_SECONDS).publish
    indexes = [publish(CONVERSATION, b"")[1] for _ in range(MAX_CAPTURES_PER_RECORD + 1)]
    await settled()
    assert len(record_of(await brokers.sent.get()).captures) == MAX_CAPTURES_PER_RECORD
    assert indexes[-2:] == [MAX_CAPTURES_PER_RECORD - 1, 0]


async def test_a_capture_is_refused_when_the_log_does_not_answer_in_time(
    make: Make, brokers: Brokers
) -> None:
    made = make(timeout_seconds=0.02)
    published, _ = made.publish(CONVERSATION, b"on its way")
    sent = await brokers.sent.get()
    waiting, _ = made.publish(CONVERSATION, b"never sent")
    assert (await refusal_of(published)).code == "not_confirmed"
    assert (await refusal_of(waiting)).code == "not_confirmed"
    sent.acknowledge(0)
    await settled()
    assert brokers.sent.empty()
    assert made._pending_bytes == 0


async def test_a_late_acknowledgement_is_no_error(make: Make, brokers: Brokers) -> None:
    made = make(timeout_seconds=0.01)
    published, _ = made.publish(CONVERSATION, b"late")
    sent = await brokers.sent.get()
    await refusal_of(published)
    sent.acknowledge(5)
    await settled()
    following, _ = made.publish(CONVERSATION, b"next")
    (await brokers.sent.get()).acknowledge(6)
    assert await following.acknowledged == (0, 6)


async def test_after_a_fatal_error_captures_are_refused_and_the_producer_is_replaced(
    make: Make, brokers: Brokers
) -> None:
    made = make()
    published, _ = made.publish(CONVERSATION, b"1")
    (await brokers.sent.get()).refuse(FatalError("sequence"))
    assert (await refusal_of(published)).code == "not_confirmed"
    (broken,) = brokers.made
    await broken.stopped.wait()
    again, _ = made.publish(CONVERSATION, b"1")
    await settled()
    assert len(brokers.made) == 2
    (await brokers.sent.get()).acknowledge(4)
    assert await again.acknowledged == (0, 4)
    assert made._pending_bytes == 0


async def test_two_records_that_fail_replace_the_producer_once(
    make: Make, brokers: Brokers
) -> None:
    made = make()
    waiting = [made.publish(conversation, b"1")[0] for conversation in (CONVERSATION, OTHER)]
    for sent in [await brokers.sent.get() for _ in waiting]:
        sent.refuse(FatalError("sequence"))
    for published in waiting:
        await refusal_of(published)
    again, _ = made.publish(OTHER, b"1")
    await settled()
    assert len(brokers.made) == 2
    (await brokers.sent.get()).acknowledge(0)
    assert await again.acknowledged == (1, 0)


async def test_captures_are_refused_while_no_producer_can_be_made(
    make: Make, brokers: Brokers
) -> None:
    made = make()
    brokers.unreachable = True
    await refusal_of(made.publish(CONVERSATION, b"1")[0])
    brokers.unreachable = False
    published, _ = made.publish(CONVERSATION, b"1")
    await settled()
    (await brokers.sent.get()).acknowledge(0)
    assert await published.acknowledged == (0, 0)


async def test_bytes_in_flight_are_capped_and_freed_again(
    make: Make, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MAX_PENDING_BYTES", 10)
    made = make()
    published, _ = made.publish(CONVERSATION, b"123456")
    sent = await brokers.sent.get()
    made.publish(OTHER, b"7890")
    with pytest.raises(RefusedError) as refused:
        made.publish(CONVERSATION, b"1")
    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    sent.acknowledge(0)
    await published.acknowledged
    await settled()
    made.publish(CONVERSATION, b"123456")


async def test_a_refused_record_frees_its_bytes(
    make: Make, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MAX_PENDING_BYTES", 10)
    made = make()
    published, _ = made.publish(CONVERSATION, b"1234567890")
    (await brokers.sent.get()).refuse(FatalError())
    await refusal_of(published)
    await settled()
    made.publish(CONVERSATION, b"1234567890")


async def test_an_offset_that_the_broker_no_longer_knows_is_told_as_none(
    make: Make, brokers: Brokers
) -> None:
    published, _ = make().publish(CONVERSATION, b"1")
    (await brokers.sent.get()).acknowledge(UNKNOWN_OFFSET)
    assert await published.acknowledged is None
    assert await published.soon is None


async def test_closing_sends_what_was_collected(make: Make, brokers: Brokers) -> None:
    made = make(linger_seconds=LONG_SECONDS)
    published, _ = made.publish(CONVERSATION, b"1")
    closing = asyncio.create_task(made.close())
    await settled()
    (await brokers.sent.get()).acknowledge(0)
    await closing
    assert published.acknowledged.result() == (0, 0)
    assert brokers.made[0].stopped.is_set()


async def test_a_record_has_the_generation_that_is_known_when_it_leaves(
    make: Make, brokers: Brokers
) -> None:
    made = make()
    brokers.reached.clear()
    made.publish(CONVERSATION, b"1")
    await settled()
    brokers.generation = 4
    brokers.reached.set()
    sent = await brokers.sent.get()
    assert record_of(sent).generation == 4
    sent.acknowledge(0)
    brokers.generation = 5
    made.publish(CONVERSATION, b"2")
    sent = await brokers.sent.get()
    assert record_of(sent).generation == 5
    sent.acknowledge(1)


async def test_an_error_that_is_not_kafkas_refuses_the_capture_too(
    make: Make, brokers: Brokers
) -> None:
    made = make(timeout_seconds=0.02)
    await made.start()
    brokers.made[0].failing = OSError("no such host")
    published, _ = made.publish(CONVERSATION, b"1")
    await settled()
    async with asyncio.timeout(0.2):
        await refusal_of(published)


async def late_lane(
    made: Publisher[tuple[int, int]], brokers: Brokers, conversation: bytes = CONVERSATION
) -> Sent:
    """Have the log be late for a partition; return the record that it did not acknowledge."""
    published, _ = made.publish(conversation, b"late")
    sent = await brokers.sent.get()
    await refusal_of(published)
    return sent


def refused_at_once(made: Publisher[tuple[int, int]], conversation: bytes = CONVERSATION) -> bool:
    try:
        made.publish(conversation, b"next")
    except RefusedError as refused:
        return refused.code == "log_unavailable" and "Retry-After" in (refused.headers or {})
    return False


async def test_while_the_log_is_late_captures_are_refused_at_once_until_it_answers(
    make: Make, brokers: Brokers
) -> None:
    made = make(timeout_seconds=0.02)
    sent = await late_lane(made, brokers)
    assert refused_at_once(made)
    assert refused_at_once(made)
    sent.acknowledge(0)
    await settled()
    assert not refused_at_once(made)
    (await brokers.sent.get()).acknowledge(1)
    assert made._pending_captures == 1


async def test_another_partition_is_not_refused(make: Make, brokers: Brokers) -> None:
    made = make(timeout_seconds=0.02)
    (await late_lane(made, brokers)).acknowledge(0)
    late = await late_lane(made, brokers, OTHER)
    assert refused_at_once(made, OTHER)
    assert not refused_at_once(made, CONVERSATION)
    late.acknowledge(0)


async def test_where_a_late_record_fails_one_capture_finds_out_whether_the_log_is_back(
    make: Make, brokers: Brokers
) -> None:
    made = make(timeout_seconds=0.02)
    (await late_lane(made, brokers)).refuse(FatalError("gone"))
    await settled()
    probe, _ = made.publish(CONVERSATION, b"probe")
    assert refused_at_once(made)
    sent = await brokers.sent.get()
    assert record_of(sent).captures == [b"probe"]
    assert refused_at_once(made)
    sent.acknowledge(3)
    assert await probe.acknowledged == (0, 3)
    assert not refused_at_once(made)


async def test_what_was_never_sent_is_dropped_when_the_log_is_late(
    make: Make, brokers: Brokers
) -> None:
    made = make(timeout_seconds=0.02)
    first, _ = made.publish(CONVERSATION, b"1")
    sent = await brokers.sent.get()
    waiting = [made.publish(CONVERSATION, b"x" * 100)[0] for _ in range(50)]
    for published in (first, *waiting):
        await refusal_of(published)
    assert (made._pending_captures, made._pending_bytes) == (1, 1)
    sent.acknowledge(0)
    await settled()
    assert (made._pending_captures, made._pending_bytes) == (0, 0)


async def test_captures_that_wait_are_capped(
    make: Make, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MAX_PENDING_CAPTURES", 2)
    made = make()
    made.publish(CONVERSATION, b"1")
    sent = await brokers.sent.get()
    made.publish(OTHER, b"2")
    with pytest.raises(RefusedError) as refused:
        made.publish(OTHER, b"3")
    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    sent.acknowledge(0)
    await settled()
    made.publish(OTHER, b"3")
