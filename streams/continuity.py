"""Notices records that retention took before they were read.

aiokafka jumps over them with a log line. Here it is an error: they were answered with 200.
"""


class RecordsLostError(Exception):
    """Raised when offsets jump: records between them were deleted before they were read."""


class Continuity:
    """Checks that a partition's records come without a hole."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._expected: dict[int, int] = {}

    def check(self, partition: int, offset: int, committed: int | None) -> None:
        """Check the next record's offset.

        Args:
            partition: of the record.
            offset: of the record.
            committed: the group's committed offset, None where it has none yet.

        Raises:
            RecordsLostError: there is a hole before this record.

        """
        expected = self._expected.get(partition, committed)
        if expected is not None and offset > expected:
            raise RecordsLostError(
                f"{self._topic} partition {partition}: records {expected} to {offset - 1} are gone "
                "before they were read. Lengthen the topic's retention; to go on without them, "
                f"set the consumer group's offset to {offset} with kafka-consumer-groups.sh"
            )
        self._expected[partition] = offset + 1

    def forget(self) -> None:
        """Start anew after a rebalance: reading goes on from the committed offsets."""
        self._expected.clear()
