"""How a trace travels beside captures: as W3C Trace Context, https://www.w3.org/TR/trace-context/.

A record holds parts of many traces, so it has one Kafka header for each sampled one.
"""

from collections.abc import Iterable, Sequence

TRACEPARENT = "traceparent"
"""The header, of HTTP and of Kafka: `00-{trace id}-{span id}-01`, 55 bytes."""

MAX_TRACES = 128
"""What one record, or one step that takes several, goes on with; a trace beyond it ends there."""

Header = tuple[str, bytes]


def traceparents(headers: Iterable[tuple[str, bytes | None]]) -> list[bytes]:
    """Return what a record's headers say of traces, as it is: who reads it checks it."""
    return [value for name, value in headers if name == TRACEPARENT and value]


def log_fields(spans: Sequence[bytes]) -> dict[str, str | list[str]]:
    """Return what a log line says of the spans that it is about, named as a header names them."""
    if len(spans) == 1:
        _, trace_id, span_id, _ = spans[0].decode().split("-")
        return {"trace_id": trace_id, "span_id": span_id}
    return {"trace_ids": [span.decode().split("-")[1] for span in spans]} if spans else {}
