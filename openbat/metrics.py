"""What a process counts, for Prometheus."""

import os
from collections.abc import Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from openbat.settings import SettingsError
from schemas.dead_letters import REASONS, Reason

ADDRESS = "127.0.0.1"
INSERT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


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

    def serve(self, port: int) -> WSGIServer:
        """Serve them, as `serve` does."""
        return serve(self.registry, port)


class InsertMetrics:
    """What the ClickHouse worker writes.

    Args:
        registry: where it is exported.
        tables: that are written; there before the first insert.

    """

    def __init__(self, registry: CollectorRegistry, tables: Sequence[str]) -> None:
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

    def repeated(self, table: str) -> None:
        """Take in that one failed, and is tried again."""
        self._retries.labels(table).inc()


def serve(registry: CollectorRegistry, port: int) -> WSGIServer:
    """Serve metrics on this machine alone, from a thread, until the server is shut down.

    Raises:
        SettingsError: the port can't be used.

    """
    try:
        server, _ = start_http_server(port, ADDRESS, registry)
    except OSError as error:
        raise SettingsError(
            f"OPENBAT_METRICS_PORT: port {port}: {os.strerror(error.errno or 0)}; each process "
            "on a machine needs one of its own"
        ) from None
    return server
