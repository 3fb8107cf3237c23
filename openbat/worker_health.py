"""Whether a worker is alive, and whether it does its work: asked from another thread."""

import asyncio
from collections.abc import Callable, Mapping

from openbat.health import ALIVE, READY, STUCK, Check, stuck
from streams.progress import Look

STARTING = "Kafka does not answer yet, or lacks the topics that `openbat migrate` makes."
STOPPING = "The worker is stopping."


class WorkerHealth:
    """Answers for a worker.

    Args:
        loop: the worker's.
        look: looks at the worker from another thread; None where its loop does not answer.

    Attributes:
        starting: what it waits for before it can be a worker; None once it has that.
        stopping: whether it was told to end.
        checks: of what its role needs beside Kafka.

    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, look: Callable[[], tuple[float, Look] | None]
    ) -> None:
        self.starting: str | None = STARTING
        self.stopping = False
        self.checks: list[Check] = []
        self._loop = loop
        self._look = look

    def paths(self) -> Mapping[str, Check]:
        """Return what is asked at which path."""
        return {ALIVE: self.stuck, READY: self.unready}

    def stuck(self) -> list[str]:
        """Return why a restart would help: nothing that is away counts, only the process itself."""
        return stuck(self._loop)

    def unready(self) -> list[str]:
        """Return what keeps it from its work."""
        if self.stopping:
            return [STOPPING]
        if self.starting:
            return self.stuck() or [self.starting]
        looked = self._look()
        if looked is None:
            return [STUCK]
        _, seen = looked
        return reasons_of(seen) + [reason for check in self.checks for reason in check()]


def reasons_of(seen: Look) -> list[str]:
    """Return why a worker that looks so can't do its work."""
    reasons = []
    if not seen.ready:
        reasons.append(
            f"The table is being recovered: it lacks {seen.recovering} changelog records."
            if seen.recovering
            else "The consumer group has not given it its partitions yet."
        )
    if not seen.kafka_answers:
        reasons.append("Kafka does not answer.")
    return reasons
