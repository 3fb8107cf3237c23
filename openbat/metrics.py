"""What a process counts, for Prometheus."""

import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from schemas.dead_letters import REASONS, Reason

INSERT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
FAILING_SECONDS = 60.0
"""For how long a failed insert counts: its repetition has failed or gone well before, within the
time of an insert and of the wait before it."""


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._dead_letters = Counter(
            "openbat_dead_letters",
            "Letters sent to dead-letters, by reason; one that is sent again is counted again.",
            ["reason"],
            registry=self.registry,
        )
        self._analysed = Counter(
            "openbat_analysed",
            "Subjects that analyzers were asked about, by analyzer and outcome.",
            ["analyzer", "outcome"],
            registry=self.registry,
        )
        # From the start, so that an alert sees the first one come.
        for reason in REASONS:
            self._dead_letters.labels(reason)

    def dead_letter(self, reason: Reason) -> None:
        self._dead_letters.labels(reason).inc()

    def analysed(self, analyzer: str, outcome: str, subjects: int) -> None:
        self._analysed.labels(analyzer, outcome).inc(subjects)


class InsertMetrics:
    """What the ClickHouse worker writes.

    Args:
        registry: where it is exported.
        tables: that are written; there before the first insert.
        clock: seconds that only grow.

    """

    def __init__(
        self,
        registry: CollectorRegistry,
        tables: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[float, float]] = {}
        self._seconds = Histogram(
            "openbat_insert_seconds",
            "How long inserts into ClickHouse took, their repetitions included.",
            ["table"],
            buckets=INSERT_SECONDS,
            registry=registry,
        )
        self._rows = Counter(
            "openbat_rows", "Rows that ClickHouse took.", ["table"], registry=registry
        )
        self._retries = Counter(
            "openbat_insert_retries",
            "Inserts that failed and were tried again.",
            ["table"],
            registry=registry,
        )
        for table in tables:
            self._seconds.labels(table)
            self._rows.labels(table)
            self._retries.labels(table)

    def inserted(self, table: str, rows: int, seconds: float) -> None:
        """Take in an insert."""
        self._seconds.labels(table).observe(seconds)
        self._rows.labels(table).inc(rows)
        self._failures.pop(table, None)

    def repeated(self, table: str) -> None:
        """Take in that one failed, and is tried again."""
        self._retries.labels(table).inc()
        now = self._clock()
        first, _ = self._failures.get(table, (now, now))
        self._failures[table] = first, now

    def failing(self) -> dict[str, float]:
        """Return for how many seconds inserts have failed, by table; may be asked in any thread."""
        now = self._clock()
        return {
            table: now - first
            for table, (first, last) in list(self._failures.items())
            if now - last < FAILING_SECONDS
        }
