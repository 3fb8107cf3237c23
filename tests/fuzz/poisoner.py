"""Writes good and bad records straight into the topics, and knows what must come of the good."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from gateway.decode import conversation_id_of
from openbat.kafka import captures_partitions, make_reader, start_producer
from schemas import sizes, topics
from schemas.records import (
    Captured,
    CapturedMessage,
    CapturesRecord,
    captures_codec,
    encode,
    replies_codec,
)
from tests.contract.client import unique
from tests.stack import Stack

REPLY_PARTITION = topics.REPLY_PARTITIONS - 1
REPLY_SECONDS = 60
MESSAGES = 2
NOW = 1_735_689_600_000_000


class Poisoner:
    """A writer of records that no gateway wrote.

    Attributes:
        prefix: of the good conversations' external ids.
        messages: how many messages the good captures have, that were answered exactly.

    """

    def __init__(
        self,
        chatbot: UUID,
        partitions: int,
        producer: AIOKafkaProducer,
        replies: AIOKafkaConsumer,
    ) -> None:
        self._chatbot = chatbot
        self._partitions = partitions
        self._producer = producer
        self._replies = replies
        self._numbers = itertools.count()
        self._turn = itertools.cycle(range(partitions))
        self.prefix = unique("beside-poison")
        self.messages = 0

    async def captures(self, frames: Sequence[bytes]) -> None:
        """Send frames in one record between two good ones; wait until those are counted."""
        partition = next(self._turn)
        good = [self.good(partition), self.good(partition)]
        await self.exactly(partition, [good[0], *frames, good[1]], {0: MESSAGES, -1: MESSAGES})

    async def exactly(
        self, partition: int, frames: Sequence[bytes], expected: Mapping[int, int]
    ) -> None:
        """Send a record; assert that these of its captures have so many new messages."""
        record = captures_codec.encode(CapturesRecord(1, REPLY_PARTITION, list(frames)))
        sent = await self._producer.send_and_wait(topics.CAPTURES, record, partition=partition)
        async with asyncio.timeout(REPLY_SECONDS):
            reply = replies_codec.decode((await self._replies.getone()).value)
            while (reply.partition, reply.offset) != (partition, sent.offset):
                reply = replies_codec.decode((await self._replies.getone()).value)
        assert len(reply.results) == len(frames)
        assert {at: reply.results[at].stored for at in expected} == expected
        self.messages += sum(expected.values())

    async def raw(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Send a record as it is; of replies, to whichever partition a gateway may read."""
        partitions: Sequence[int] = [next(self._turn)]
        if topic in {topics.CHATBOTS, topics.SPENDING}:
            partitions = [0]
        elif topic == topics.REPLIES:
            partitions = range(REPLY_PARTITION)  # the one that is read here has to decode
        for partition in partitions:
            await self._producer.send(topic, value, key=key, partition=partition)

    def good(self, partition: int, received_at: int = NOW) -> bytes:
        """Return the frame of a good capture of a new conversation of this partition."""
        while True:
            name = f"{self.prefix}-{next(self._numbers)}"
            conversation = conversation_id_of(self._chatbot, name).bytes
            if topics.partition_of(conversation, self._partitions) == partition:
                break
        sent = [CapturedMessage(f"m{at}", "user", "hi", NOW, True) for at in range(MESSAGES)]
        return encode(
            Captured(self._chatbot.bytes, conversation, name, received_at, True, sent, {})
        )

    async def flushed(self) -> None:
        """Return when all that was sent is in the log."""
        await self._producer.flush()


@asynccontextmanager
async def poisoner(stack: Stack) -> AsyncIterator[Poisoner]:
    """Connect a writer to the stack's broker."""
    async with AsyncExitStack() as exits:
        producer = await start_producer(stack.connection, sizes.BATCH)
        exits.push_async_callback(producer.stop)
        replies = make_reader(stack.connection)
        exits.push_async_callback(replies.stop)
        await replies.start()
        own = TopicPartition(topics.REPLIES, REPLY_PARTITION)
        replies.assign([own])
        await replies.seek_to_end(own)
        await replies.position(own)
        partitions = await captures_partitions(stack.connection)
        yield Poisoner(UUID(stack.state["chatbot_id"]), partitions, producer, replies)
