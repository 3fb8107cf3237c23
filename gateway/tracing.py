"""The spans of a capture: one of its request, and in it one until its record is acknowledged.

Imported only where traces are switched on: OpenTelemetry is an extra.
"""

import asyncio
import random
from types import TracebackType
from typing import Any, Self

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.requests import Request

from gateway.errors import RefusedError
from gateway.head import Head
from gateway.request_id import SCOPE, forget_trace
from schemas import topics
from schemas.traces import TRACEPARENT

_HEADER = TRACEPARENT.encode()
_propagator = TraceContextTextMapPropagator()


class CaptureTracer:
    """Decides which captures are traced: as the caller's traceparent says, or else by chance.

    Args:
        tracer: records all that it is given.
        ratio: of the requests without a valid traceparent, 0 to 1.

    """

    def __init__(self, tracer: Tracer, ratio: float) -> None:
        self._tracer = tracer
        self._ratio = ratio

    def begin(self, request: Request, head: Head) -> "CaptureTrace | None":
        """Return the trace of a request, None where it is not sampled."""
        forget_trace()
        context = Context()
        given = head.get(_HEADER)
        if given is not None:
            context = _propagator.extract({TRACEPARENT: given}, context)
            parent = get_current_span(context).get_span_context()
            if parent.is_valid:
                sampled = parent.trace_flags.sampled
                return CaptureTrace(self._tracer, context, request) if sampled else None
        if random.random() >= self._ratio:  # noqa: S311 - no secret
            return None
        return CaptureTrace(self._tracer, context, request)


class CaptureTrace:
    """The spans of one sampled request; a context manager, around all that is done for it.

    Nothing that a client sent is among the attributes but the request's id.
    """

    def __init__(self, tracer: Tracer, context: Context, request: Request) -> None:
        self._tracer = tracer
        path = request.scope["path"]
        self._server = tracer.start_span(
            f"POST {path}",
            context,
            SpanKind.SERVER,
            {
                "http.request.method": "POST",
                "http.route": path,
                "url.path": path,
                "url.scheme": request.scope["scheme"],
                "openbat.request_id": request.scope.get(SCOPE, b"").decode(),
            },
        )
        self._publish: Span | None = None

    def __enter__(self) -> Self:
        server = self._server.get_span_context()
        structlog.contextvars.bind_contextvars(
            trace_id=f"{server.trace_id:032x}", span_id=f"{server.span_id:016x}"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            self.answered(error.status if isinstance(error, RefusedError) else 500)
            name = _error_type(error)
            self._server.set_attribute("error.type", name)
            self._end_publish(name)
        self._server.end()

    def answered(self, status: int) -> None:
        self._server.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._server.set_status(Status(StatusCode.ERROR))

    def publishing(self, chatbot_id: str, messages: int) -> bytes:
        """Begin the span of the record to be; return the traceparent that goes with it."""
        self._server.set_attributes(
            {"openbat.chatbot.id": chatbot_id, "openbat.messages": messages}
        )
        self._publish = self._tracer.start_span(
            f"send {topics.CAPTURES}",
            set_span_in_context(self._server, Context()),
            SpanKind.PRODUCER,
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": topics.CAPTURES,
            },
        )
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(self._publish, Context()))
        return carrier[TRACEPARENT].encode()

    def published(self, acknowledged: asyncio.Future[Any]) -> None:
        """End it, once its record is acknowledged, or given up."""
        error = acknowledged.exception()
        self._end_publish(None if error is None else _error_type(error))

    def _end_publish(self, error_type: str | None) -> None:
        if self._publish is None or not self._publish.is_recording():
            return
        if error_type is not None:
            self._publish.set_attribute("error.type", error_type)
            self._publish.set_status(Status(StatusCode.ERROR))
        self._publish.end()


def _error_type(error: BaseException) -> str:
    return error.code if isinstance(error, RefusedError) else type(error).__name__
