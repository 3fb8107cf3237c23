"""What was spent, as it travels between analysis workers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from analysis.llm import Spending, Tally, Usage
from openbat import spending
from openbat.spending import PARTITION, follow, key_of, publish, tally_codec
from schemas import topics
from tests.unit.fakes import FakeConsumer, FakeProducer, settled

DAY = 20_000
CHATBOT = bytes(range(16))
TALLY = Tally("analysis-1", CHATBOT, DAY, 30, 5)


def tally(worker: str, prompt_tokens: int, day: int = DAY) -> Tally:
    return Tally(worker, CHATBOT, day, prompt_tokens, 0)


def fetch(*values: bytes | None) -> dict[Any, list[Any]]:
    return {PARTITION: [SimpleNamespace(offset=at, value=value) for at, value in enumerate(values)]}


async def followed(*fetches: dict[Any, list[Any]]) -> Spending:
    """Return what a worker knows that has read these."""
    spent = Spending("analysis-2")
    consumer: Any = FakeConsumer(list(fetches))
    following = asyncio.create_task(follow(consumer, spent))
    await consumer.at_end.wait()
    following.cancel()
    return spent


def test_a_tally_is_written_as_it_always_was() -> None:
    assert key_of(TALLY) == b"20000/000102030405060708090a0b0c0d0e0f/analysis-1"
    assert tally_codec.encode(TALLY)[:1] == b"\1"
    assert tally_codec.decode(tally_codec.encode(TALLY)) == TALLY


def test_a_tally_replaces_one_of_the_same_worker_chatbot_and_day_alone() -> None:
    others = [
        TALLY,
        Tally("analysis-1", CHATBOT, DAY, 99, 99),
        Tally("analysis-2", CHATBOT, DAY, 30, 5),
        Tally("analysis-1", bytes(16), DAY, 30, 5),
        Tally("analysis-1", CHATBOT, DAY + 1, 30, 5),
    ]
    assert len({key_of(each) for each in others}) == 4


async def test_a_tally_is_handed_on_when_it_is_durable() -> None:
    producer: Any = FakeProducer()
    publishing = asyncio.create_task(publish(producer, TALLY))
    await settled()
    assert not publishing.done()
    (sent,) = producer.all_sent()
    assert (sent.topic, sent.partition) == (topics.SPENDING, 0)
    assert sent.entries == [(key_of(TALLY), tally_codec.encode(TALLY))]
    sent.acknowledge(3)
    await publishing


async def test_a_tally_that_can_not_be_handed_on_is_no_secret_loss() -> None:
    producer: Any = FakeProducer()
    publishing = asyncio.create_task(publish(producer, TALLY))
    await settled()
    producer.all_sent()[0].refuse(KafkaError("away"))
    with pytest.raises(KafkaError):
        await publishing


async def test_what_workers_have_spent_is_summed_whatever_is_read_again() -> None:
    values = [
        tally_codec.encode(each)
        for each in (
            tally("a", 5), tally("b", 7), tally("a", 11), tally("a", 5), tally("a", 1, DAY + 1),
        )
    ]  # fmt: skip
    spent = await followed(fetch(*values[:2]), {}, fetch(*values), fetch(values[0]))
    assert spent.total(CHATBOT, DAY) == Usage(18, 0)
    assert spent.total(CHATBOT, DAY + 1) == Usage(1, 0)
    assert spent.total(bytes(16), DAY) == Usage()


async def test_a_tally_that_can_not_be_read_keeps_none_back() -> None:
    values = [b"", b"\xff of another release", None, tally_codec.encode(tally("a", 5))]
    spent = await followed(fetch(*values))
    assert spent.total(CHATBOT, DAY) == Usage(5, 0)


async def test_all_that_is_there_is_read_before_the_first_is_spent() -> None:
    class Topic(FakeConsumer):
        """A partition of three records, of which compaction has taken the second."""

        def __init__(self) -> None:
            super().__init__(
                [fetch(tally_codec.encode(tally("a", 5))), {}, fetch(tally_codec.encode(
                    tally("analysis-2", 7)))]
            )  # fmt: skip
            self.assigned: list[Any] = []
            self._positions = iter([0, 1, 1, 3])

        def assign(self, partitions: list[Any]) -> None:
            self.assigned = partitions

        async def seek_to_beginning(self, partition: Any) -> None:
            assert [partition] == self.assigned

        async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
            return dict.fromkeys(partitions, 3)

        async def position(self, _partition: Any) -> int:
            return next(self._positions)

    spent = Spending("analysis-2")
    consumer: Any = Topic()
    await spending.read_to_end(consumer, spent)
    assert consumer.assigned == [PARTITION]
    assert spent.total(CHATBOT, DAY) == Usage(12, 0)
    again = spent.add(CHATBOT, Usage(1, 1), DAY * 86_400.0)
    assert again == Tally("analysis-2", CHATBOT, DAY, 8, 1)
