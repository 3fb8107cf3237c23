"""What a process counts, for Prometheus."""

import os
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, start_http_server

from openbat.settings import SettingsError
from schemas.dead_letters import REASONS, Reason

ADDRESS = "127.0.0.1"


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
        """Serve them on this machine alone, from a thread, until the server is shut down.

        Raises:
            SettingsError: the port can't be used.

        """
        try:
            server, _ = start_http_server(port, ADDRESS, self.registry)
        except OSError as error:
            raise SettingsError(
                f"OPENBAT_METRICS_PORT: port {port}: {os.strerror(error.errno or 0)}; each process "
                "on a machine needs one of its own"
            ) from None
        return server
