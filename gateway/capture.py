"""POST /api/v1/capture, from the request to its answer."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
import uuid_utils
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth import authenticate
from gateway.body import Bodies, Held, check_content_type, read_body
from gateway.decode import captured_of, decode_capture, distinct_messages
from gateway.errors import RefusedError, too_large
from gateway.head import Head
from gateway.limits import RateLimits
from gateway.metrics import GatewayMetrics
from gateway.prefer import Preference, preference
from gateway.publisher import Published, Publisher
from gateway.registry import Registry
from gateway.replies import Expected, result_at
from schemas import sizes
from schemas.capture import Capture, CaptureAnswer
from schemas.chatbots import Chatbot
from schemas.records import Captured, CaptureResult, encode

if TYPE_CHECKING:
    from gateway.tracing import CaptureTrace, CaptureTracer

PENDING = "Deduplication pending: messagesStored is provisional"
LEFT_OUT = "Field '{}' left out: the conversation's fields would take more than 64 KiB"
DEPRECATED_SINCE = "@1735689600"
"""RFC 9745: since when userId and metadata are deprecated, 2025-01-01."""

encode_answer = msgspec.json.Encoder().encode


class Bounds(Struct, frozen=True):
    """What a request may take."""

    max_body_bytes: int
    longest_wait_seconds: int


class CaptureEndpoint:
    """Takes captures. Holds what a request needs.

    Args:
        registry: knows the chatbots.
        limits: counts their captures.
        publisher: takes what is to become durable.
        bounds: of a request.
        metrics: told what became of captures.
        tracer: traces some of them, None for none.
        note_first: told of each durable capture of a chatbot whose first one the registry does not
            show yet: the chatbot's id, and when the capture was received, in microseconds since
            the epoch. Must neither block nor raise. None where nobody is to be told.

    """

    def __init__(
        self,
        registry: Registry,
        limits: RateLimits,
        publisher: Publisher[Expected],
        bounds: Bounds,
        metrics: GatewayMetrics,
        tracer: "CaptureTracer | None" = None,
        note_first: Callable[[str, int], None] | None = None,
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._publisher = publisher
        self._bounds = bounds
        self._metrics = metrics
        self._tracer = tracer
        self._note_first = note_first
        self._bodies = Bodies()

    async def post(self, request: Request) -> Response:
        """Answer one capture. Raises RefusedError where it can't be taken."""
        head = Head(request)
        trace = None if self._tracer is None else self._tracer.begin(request, head)
        if trace is None:
            return await self._answer(request, head, None)
        with trace:
            response = await self._answer(request, head, trace)
            trace.answered(response.status_code)
            return response

    async def _answer(self, request: Request, head: Head, trace: "CaptureTrace | None") -> Response:
        chatbot = authenticate(head.get(b"authorization"), self._registry.chatbot_of)
        try:
            await self._limits.take(chatbot)
        except RefusedError:
            self._metrics.rate_limited(chatbot.name)
            raise
        check_content_type(head.get(b"content-type"))
        with Held(self._bodies) as held:
            return await self._take(request, head, chatbot, held, trace)

    async def _take(
        self,
        request: Request,
        head: Head,
        chatbot: Chatbot,
        held: Held,
        trace: "CaptureTrace | None",
    ) -> Response:
        bounds = self._bounds
        body = await read_body(request, head, bounds.max_body_bytes, held)
        read_at = time.perf_counter()
        received_at = time.time_ns() // 1000
        capture = decode_capture(body)
        captured, warnings = captured_of(
            capture, chatbot, received_at, head.get(b"idempotency-key")
        )
        frame = encode(captured)
        if len(frame) > sizes.CAPTURE:
            raise too_large(bounds.max_body_bytes)
        wanted = preference(head.every(b"prefer"), bounds.longest_wait_seconds)
        if trace is None:
            published, index = self._publisher.publish(captured.conversation_id, frame)
        else:
            traceparent = trace.publishing(chatbot.id, len(captured.messages))
            published, index = self._publisher.publish(captured.conversation_id, frame, traceparent)
            published.acknowledged.add_done_callback(trace.published)
        result = await _result(published, index, wanted)
        self._metrics.taken(chatbot.name)
        if chatbot.first_capture_at is None and self._note_first is not None:
            self._note_first(chatbot.id, received_at)
        if result is None or result.stored is None:
            asked = wanted.respond_async or wanted.wait_seconds == 0
            self._metrics.provisional(asked=asked)
        else:
            self._metrics.exact(time.perf_counter() - read_at)
        return Response(
            encode_answer(answer_of(captured, warnings, result)),
            headers=_answer_headers(capture, wanted),
            media_type="application/json",
        )


async def _result(
    published: Published[Expected], index: int, wanted: Preference
) -> CaptureResult | None:
    """Return what became of the capture once it is durable, None where that is not known in time.

    Captures of one record wait for the same futures. Only the server's end cancels who waits, all
    of them at once; who may give up alone shields them.

    Raises:
        RefusedError: 503, it is not durable.

    """
    if wanted.wait_seconds is None and not wanted.respond_async:
        return result_at(await published.soon, index)
    expected = await published.acknowledged
    if expected is None or wanted.wait_seconds is None:
        return None
    try:
        async with asyncio.timeout(wanted.wait_seconds):
            return result_at(await asyncio.shield(expected.results), index)
    except TimeoutError:
        return None


def answer_of(
    captured: Captured, warnings: Mapping[str, str], result: CaptureResult | None
) -> CaptureAnswer:
    """Return what a durable capture is answered with.

    Args:
        captured: the capture.
        warnings: by field, of what was decoded.
        result: what became of it, None where that is not known: the answer is provisional then.

    """
    if result is None or result.stored is None:
        stored = distinct_messages(captured)
        said = [*warnings.values(), PENDING]
    else:
        stored = result.stored
        # At most one warning a field: that it was left out says more.
        left_out = {name: LEFT_OUT.format(name) for name in result.left_out}
        said = list({**warnings, **left_out}.values())
    return CaptureAnswer(
        ok=True,
        conversation_id=str(uuid_utils.UUID(bytes=captured.conversation_id)),
        messages_stored=stored,
        analysis_queued=captured.analysis and stored > 0,
        warnings=said,
    )


def _answer_headers(capture: Capture, wanted: Preference) -> dict[str, str]:
    headers = {}
    if capture.user_id is not None or capture.metadata is not None:
        headers["Deprecation"] = DEPRECATED_SINCE
    if wanted.applied:
        headers["Preference-Applied"] = wanted.applied
    return headers
