"""The gateway's view of the registry: read to its end before it is ready, then followed."""

import asyncio
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas import topics
from schemas.chatbots import GENERATION_KEY, Chatbot, chatbot_codec, generation_codec
from schemas.codec import UndecodableError

log = structlog.get_logger()

PARTITION = TopicPartition(topics.CHATBOTS, 0)


class Registry:
    """Chatbots by the SHA-256 of their key. Pure: entries in, look-ups out.

    Attributes:
        generation: of the captures topic.
        unreadable: ids of chatbots whose last entry could not be read.

    """

    def __init__(self) -> None:
        self.generation = 0
        self.unreadable: set[bytes] = set()
        self._by_id: dict[bytes, Chatbot] = {}
        self._by_key: dict[bytes, Chatbot] = {}

    def chatbot_of(self, key_sha256: bytes) -> Chatbot | None:
        return self._by_key.get(key_sha256)

    def chatbot(self, chatbot_id: bytes) -> Chatbot | None:
        return self._by_id.get(chatbot_id)

    def chatbots(self) -> list[Chatbot]:
        return sorted(self._by_id.values(), key=lambda chatbot: chatbot.name)

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Apply one entry of the topic; None removes a chatbot.

        Raises:
            UndecodableError: the entry is not in a format that this release reads, or stands under
                another key than its chatbot's id. The chatbot is gone from the registry then: an
                entry that can't be read might have revoked its key.

        """
        if key == GENERATION_KEY:
            if value is not None:
                self.generation = generation_codec.decode(value).generation
            return
        before = self._by_id.pop(key, None)
        if before is not None:
            self._by_key.pop(before.key_sha256, None)
        if value is None:
            self.unreadable.discard(key)
        else:
            self.unreadable.add(key)
            chatbot = chatbot_codec.decode(value)
            if key != _key_of(chatbot):
                raise UndecodableError("the entry's key is not its chatbot's id")
            self.unreadable.discard(key)
            self._by_id[key] = chatbot
            self._by_key[chatbot.key_sha256] = chatbot


def _key_of(chatbot: Chatbot) -> bytes | None:
    """Return the key that the chatbot's entry has; None where its id is no UUID."""
    try:
        return UUID(chatbot.id).bytes
    except ValueError:
        return None


async def read_to_end(consumer: AIOKafkaConsumer, registry: Registry) -> None:
    """Assign the registry's partition and apply all that is there now."""
    consumer.assign([PARTITION])
    await consumer.seek_to_beginning(PARTITION)
    end = (await consumer.end_offsets([PARTITION]))[PARTITION]
    while await consumer.position(PARTITION) < end:
        _apply(await consumer.getmany(timeout_ms=100), registry)


async def follow(consumer: AIOKafkaConsumer, registry: Registry) -> None:
    """Apply every later entry as it comes, for ever."""
    while True:
        before = registry.generation
        _apply(await consumer.getmany(timeout_ms=1000), registry)
        if registry.generation != before:
            log.warning("captures have another generation", generation=registry.generation)
        await asyncio.sleep(0)


def _apply(fetched: dict[TopicPartition, list[object]], registry: Registry) -> None:
    for record in fetched.get(PARTITION, []):
        key, value, offset = record.key, record.value, record.offset  # type: ignore[attr-defined]
        try:
            registry.apply(key, value)
        except UndecodableError as error:
            log.error("undecodable chatbot", offset=offset, error=str(error))
