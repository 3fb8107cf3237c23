"""The spans of a worker's step: one for each trace that is among what it does at once.

Imported only where traces are switched on: OpenTelemetry is an extra. A record that is read again
after a kill may have its spans twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas import topics
from schemas.traces import MAX_TRACES, TRACEPARENT, Header, log_fields, traceparents
from streams.lanes import Received

_propagator = TraceContextTextMapPropagator()

Attributes = Mapping[str, str | int]


class Spans:
    """Spans that begin and end together.

    Attributes:
        headers: what names them as parents in the headers of a record.

    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self.headers: list[Header] = [(TRACEPARENT, _traceparent(span)) for span in spans]

    def logged(self) -> AbstractContextManager[Any]:
        """Have lines that are logged within say which traces they are about."""
        fields = log_fields([value for _, value in self.headers])
        return structlog.contextvars.bound_contextvars(**fields)

    def end(self) -> None:
        for span in self._spans:
            span.end()


class StreamTracer:
    """Goes on with the traces that come with records: those and no others, MAX_TRACES at once.

    Args:
        tracer: records all that it is given.

    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def processing(self, partition: int, records: Iterable[Received]) -> Spans | None:
        """Begin the spans of captures' records, None where none is traced."""
        parents = [
            (parent, _of_captures(partition, record.offset))
            for record in records
            if record.headers
            for parent in traceparents(record.headers)
        ]
        return self._begin(f"process {topics.CAPTURES}", SpanKind.CONSUMER, parents)

    def inserting(self, parents: Iterable[bytes], topic: str, rows: int) -> Spans | None:
        """Begin the spans of an insert of so many rows, from records that came with the parents."""
        attributes: Attributes = {
            "db.system.name": "clickhouse",
            "db.operation.name": "INSERT",
            "db.operation.batch.size": rows,
        }
        name = f"insert {topic}"
        return self._begin(name, SpanKind.CLIENT, ((parent, attributes) for parent in parents))

    def _begin(
        self, name: str, kind: SpanKind, parents: Iterable[tuple[bytes, Attributes]]
    ) -> Spans | None:
        spans = []
        for parent, attributes in islice(parents, MAX_TRACES):
            context = _propagator.extract({TRACEPARENT: parent.decode("latin-1")}, Context())
            # Where it is no traceparent, there is no span in the context.
            if get_current_span(context).get_span_context().trace_flags.sampled:
                spans.append(self._tracer.start_span(name, context, kind, attributes))
        return Spans(spans) if spans else None


def _of_captures(partition: int, offset: int) -> Attributes:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": topics.CONVERSATIONS_GROUP,
        "messaging.destination.name": topics.CAPTURES,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
    }


def _traceparent(span: Span) -> bytes:
    named = span.get_span_context()
    return f"00-{format_trace_id(named.trace_id)}-{format_span_id(named.span_id)}-01".encode()
