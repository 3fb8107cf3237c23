"""Notices records that were not read: taken by retention before, or dropped on the way.

aiokafka jumps over what retention took with a log line. Here it is an error: those captures were
answered with 200.
"""


class RecordsLostError(Exception):
    """Raised when offsets jump: the records between them were not read."""


class Continuity:
    """Checks that a partition's records come without a hole."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._expected: dict[int, int] = {}

    def start(self, partition: int, offset: int) -> None:
        """Expect this offset next: reading goes on from it."""
        self._expected[partition] = offset

    def check(self, partition: int, offset: int) -> None:
        """Check the next record's offset. One that was read before is welcome: a replay.

        Raises:
            RecordsLostError: there is a hole before this record.

        """
        expected = self._expected.get(partition, offset)
        if offset > expected:
            raise RecordsLostError(
                f"{self._topic} partition {partition}: records {expected} to {offset - 1} are "
                "missing. If retention took them before they were read, lengthen it; to go on "
                f"without them, set the consumer group's offset to {offset} with "
                "kafka-consumer-groups.sh"
            )
        self._expected[partition] = offset + 1
