"""A consumer group as Kafka itself sees it: who reads what, and how much is left to read."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from openbat.connection import Connection
from openbat.kafka import make_reader

Ends = Mapping[TopicPartition, int]


class Groups:
    """Looks at groups, for as long as the block lasts."""

    def __init__(self, connection: Connection) -> None:
        self._admin = AIOKafkaAdminClient(**connection.options())
        self._reader: AIOKafkaConsumer = make_reader(connection)

    async def __aenter__(self) -> Self:
        await self._admin.start()
        await self._reader.start()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        await self._reader.stop()
        await self._admin.close()

    async def shares(self, group: str, topic: str) -> list[set[int]]:
        """Return each member's partitions of a topic, the largest share first.

        A member that was stopped is one until its session ends. Empty while they are shared out.
        """
        (answer,) = await self._admin.describe_consumer_groups([group])
        ((_, _, state, _, _, members, *_),) = answer.groups
        if state != "Stable":
            return []
        found = [
            {tp.partition for tp in _decoded(member[4]).partitions() if tp.topic == topic}
            for member in members
        ]
        return sorted(found, key=len, reverse=True)

    async def lag(self, group: str, topics: Sequence[str]) -> int:
        """Return how many records of topics a group has not committed yet."""
        ends = await self._ends(topics)
        committed = await self._admin.list_consumer_group_offsets(group)
        return sum(
            max(0, end - (committed[tp].offset if tp in committed else 0))
            for tp, end in ends.items()
        )

    async def _ends(self, topics: Sequence[str]) -> Ends:
        found: list[TopicPartition] = []
        for topic in await self._admin.describe_topics(list(topics)):
            found += [
                TopicPartition(topic["topic"], each["partition"]) for each in topic["partitions"]
            ]
        ends: Ends = await self._reader.end_offsets(found)
        return ends


def _decoded(assignment: bytes) -> ConsumerProtocolMemberAssignment:
    decoded: ConsumerProtocolMemberAssignment = ConsumerProtocolMemberAssignment.decode(assignment)
    return decoded
