"""Traces, where the environment names a collector; without one nothing of them is imported.

The exporter reads OpenTelemetry's own variables:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from openbat import __version__
from openbat.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DISABLED = "OTEL_SDK_DISABLED"
SERVICE_NAME = "OTEL_SERVICE_NAME"
CLOSE_SECONDS = 2.0
"""How long the last spans may take to be sent. A collector that is away delays no process's end."""


class Tracing:
    """Spans on their way to the collector: sent every few seconds, by a thread of its own.

    What it can't send in time is dropped, and logged.

    Attributes:
        tracer: makes spans, all of which are sent.

    """

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("openbat", __version__)

    def close(self) -> None:
        """Send what is left; blocks for CLOSE_SECONDS at most."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def start(role: str, environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Return the traces of a process, None where no collector is named.

    Args:
        role: what it does; the service is `openbat-{role}`, unless OTEL_SERVICE_NAME is set.
        environment: where the variables are.

    Raises:
        SettingsError: the extra `tracing` is not installed.

    """
    named = [name for name in ENDPOINTS if environment.get(name)]
    if not named or environment.get(DISABLED, "").strip().lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as error:
        raise SettingsError(
            f"{named[0]}: {error.name} is missing: pip install 'openbat-capture[tracing]', "
            "or unset it"
        ) from None
    service = environment.get(SERVICE_NAME) or f"openbat-{role}"
    provider = TracerProvider(
        ALWAYS_ON,  # what is not sampled gets no span
        Resource.create({"service.name": service, "service.version": __version__}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
