"""Traces of captures, from the request to the insert, with real spans and no collector."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from gateway.tracing import CaptureTracer
from openbat import tracing
from openbat.settings import SettingsError
from schemas import sizes, topics
from schemas.records import CaptureResult, RepliesRecord, encode
from schemas.traces import MAX_TRACES, TRACEPARENT, Header, log_fields, traceparents
from streams.lanes import Received
from streams.tracing import StreamTracer
from tests.stack import ROOT
from tests.unit.fakes import FakeProducer, FatalError, settled
from tests.unit.test_clickhouse_agent import Worker as ClickHouseWorker
from tests.unit.test_conversations import Worker as ConversationsWorker
from tests.unit.test_conversations import capture, record
from tests.unit.test_gateway_metrics import KEY, UNKNOWN_KEY, Gateway
from tests.unit.test_protocol import BOUNDS, serve

TRACE_ID, SPAN_ID = f"{0xAB12:032x}", f"{0xCD:016x}"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"
INVALID = [
    "",
    "00",
    f"ff-{TRACE_ID}-{SPAN_ID}-01",
    f"00-{'0' * 32}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{TRACE_ID}-{SPAN_ID}-01-more",
    SAMPLED.upper(),
    "x" * 10_000,
]


class Spans:
    """What was recorded, ended spans alone."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    def ended(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.all()}

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())


class HeadersProducer(FakeProducer):
    """Keeps headers as they are sent: several may have one name."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[tuple[str, list[Header] | None]] = []

    async def send(self, topic: str, value: bytes, **options: Any) -> Any:
        self.headers.append((topic, options.get("headers")))
        return await super().send(topic, value, **options)


@pytest.fixture
def spans() -> Spans:
    return Spans()


class Traced:
    """A gateway that traces."""

    def __init__(self, spans: Spans, ratio: float) -> None:
        self.producer = HeadersProducer()
        self.gateway = Gateway(CaptureTracer(spans.tracer, ratio), self.producer)

    async def post(self, *headers: dict[str, str], key: str = KEY) -> list[int]:
        """Post captures at once; answer all of them. Return their statuses."""
        posting = [asyncio.create_task(self.gateway.post(key, **each)) for each in headers]
        if key == KEY:
            sent = await self.producer.sent.get()
            sent.acknowledge(7)
            await settled()
            reply = RepliesRecord(sent.partition, 7, [CaptureResult(1) for _ in headers])
            self.gateway.replies.receive(reply)
        return [answer.status_code for answer in await asyncio.gather(*posting)]


@contextlib.asynccontextmanager
async def traced(spans: Spans, ratio: float = 0.0) -> AsyncIterator[Traced]:
    made = Traced(spans, ratio)
    yield made
    await made.gateway.client.aclose()
    made.gateway.publisher._timeout_seconds = 0.01
    await made.gateway.publisher.close()


def id_of(span: ReadableSpan) -> tuple[int, int]:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


def header_of(span: ReadableSpan) -> Header:
    trace_id, span_id = id_of(span)
    return TRACEPARENT, f"00-{trace_id:032x}-{span_id:016x}-01".encode()


async def test_a_callers_trace_is_followed_to_the_record(spans: Spans) -> None:
    async with traced(spans) as made:
        assert await made.post({"traceparent": SAMPLED}) == [200]
    found = spans.ended()
    server, publish = found["POST /api/v1/capture"], found["send captures"]
    assert (server.kind, publish.kind) == (SpanKind.SERVER, SpanKind.PRODUCER)
    assert parent_of(server) == (0xAB12, 0xCD)
    assert parent_of(publish) == id_of(server)
    assert made.producer.headers == [(topics.CAPTURES, [header_of(publish)])]
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["openbat.messages"] == 1
    assert server.attributes["openbat.chatbot.id"] == "00000000-0000-0000-0000-000000000001"
    told = " ".join(str(span.attributes) for span in spans.all())
    for kept in (KEY, "Hello", "conv_1"):
        assert kept not in told


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_what_the_caller_did_not_sample_is_not_traced(spans: Spans, ratio: float) -> None:
    async with traced(spans, ratio) as made:
        assert await made.post({"traceparent": UNSAMPLED}) == [200]
    assert spans.all() == []
    assert made.producer.headers == [(topics.CAPTURES, None)]


@pytest.mark.parametrize("given", [None, *INVALID], ids=lambda given: repr(given)[:40])
async def test_without_a_traceparent_the_ratio_decides(spans: Spans, given: str | None) -> None:
    headers = {} if given is None else {"traceparent": given}
    async with traced(spans, 0.0) as made:
        await made.post(headers)
    assert spans.all() == []
    async with traced(spans, 1.0) as made:
        await made.post(headers)
    server = spans.ended()["POST /api/v1/capture"]
    assert server.parent is None


async def test_a_record_names_every_traced_capture_in_it(spans: Spans) -> None:
    other = SAMPLED.replace("ab12", "ab13")
    async with traced(spans) as made:
        await made.post({"traceparent": SAMPLED}, {}, {"traceparent": other})
    ((_, headers),) = made.producer.headers
    published = [span for span in spans.all() if span.name == "send captures"]
    assert len(published) == 2
    assert headers is not None
    assert sorted(headers) == sorted(map(header_of, published))


async def test_a_refused_request_is_traced_with_its_status(spans: Spans) -> None:
    async with traced(spans) as made:
        assert await made.post({"traceparent": SAMPLED}, key=UNKNOWN_KEY) == [401]
    (server,) = spans.all()
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 401
    assert server.attributes["error.type"] == "unauthorized"
    assert server.status.status_code is StatusCode.UNSET


async def test_a_capture_that_the_log_refuses_ends_both_its_spans_in_error(spans: Spans) -> None:
    async with traced(spans) as made:
        posting = asyncio.create_task(made.gateway.post(traceparent=SAMPLED))
        (await made.producer.sent.get()).refuse(FatalError("gone"))
        assert (await posting).status_code == 503
    assert len(spans.all()) == 2
    for span in spans.all():
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == "not_confirmed"


@pytest.mark.parametrize(
    ("second", "status"),
    [(b"GET /nowhere HTTP/1.1\r\n\r\n", 404), (b"no http\r\n\r\n", 405)],
    ids=["route", "connection"],
)
async def test_what_is_pipelined_is_not_logged_in_the_name_of_the_one_before(
    spans: Spans, second: bytes, status: int
) -> None:
    first = f"POST /api/v1/capture HTTP/1.1\r\ntraceparent: {SAMPLED}\r\ncontent-length: 0\r\n\r\n"
    merge = structlog.contextvars.merge_contextvars
    async with traced(spans) as made, serve(BOUNDS, app=made.gateway.app) as served:
        client = await served.connect()
        with structlog.testing.capture_logs([merge]) as logged:
            client.send(first.encode() + second)
            assert [(await client.answer()).status for _ in range(2)] == [401, status]
    assert [(line["status"], line.get("trace_id")) for line in logged] == [
        (401, TRACE_ID),
        (status, None),
    ]
    assert "span_id" not in logged[1]


def sent_headers(producer: FakeProducer, topic: str) -> list[list[Header] | None]:
    assert isinstance(producer, HeadersProducer)
    return [headers for to, headers in producer.headers if to == topic]


class TracedWorker(ConversationsWorker):
    """A conversations worker that traces; its records come with headers."""

    def __init__(self, directory: Path, spans: Spans) -> None:
        super().__init__(directory)
        self.producer = self.agent._producer = HeadersProducer()
        self.agent._dead_letters._producer = self.producer
        self.agent._tracer = StreamTracer(spans.tracer)
        self.headers: list[list[Header]] = []

    def received(self, offset: int, value: bytes) -> Received:
        headers = self.headers.pop(0) if self.headers else ()
        return super().received(offset, value)._replace(headers=headers)


def parents(*numbers: int) -> list[Header]:
    return [(TRACEPARENT, f"00-{number:032x}-{number:016x}-01".encode()) for number in numbers]


async def test_a_worker_goes_on_with_each_trace_until_its_records_are_acked(
    tmp_path: Path, spans: Spans
) -> None:
    worker = TracedWorker(tmp_path, spans)
    worker.headers = [parents(1, 2), [], parents(3)]
    values = [record(capture(name)) for name in "abc"]
    sent = await worker.take(4, *values)
    assert spans.all() == []
    for each in sent:
        each.acknowledge(0)
    await worker.drained()
    assert worker.acked == [4, 5, 6]
    found = spans.all()
    assert [span.name for span in found] == ["process captures"] * 3
    assert [parent_of(span) for span in found] == [(1, 1), (2, 2), (3, 3)]
    attributes = [span.attributes or {} for span in found]
    assert [each["messaging.kafka.offset"] for each in attributes] == [4, 4, 6]
    assert sent_headers(worker.producer, topics.MESSAGES) == [[header_of(span) for span in found]]
    assert structlog.contextvars.get_contextvars() == {}


async def test_a_record_without_a_trace_begins_none(tmp_path: Path, spans: Spans) -> None:
    worker = TracedWorker(tmp_path, spans)
    worker.headers = [[("other", b"header")]]
    for each in await worker.take(0, record(capture("a")), record(capture("b"))):
        each.acknowledge(0)
    await worker.drained()
    assert spans.all() == []
    assert sent_headers(worker.producer, topics.MESSAGES) == [None]


async def test_of_several_records_of_messages_the_last_one_carries_the_traces(
    tmp_path: Path, spans: Spans
) -> None:
    worker = TracedWorker(tmp_path, spans)
    worker.headers = [parents(1)]
    large = "x" * 255
    conversations = [
        capture(*(f"{large[:200]}{at}-{number}" for number in range(100))) for at in range(120)
    ]
    assert sum(map(len, conversations)) > 2 * sizes.OUTPUT_BATCH
    for each in await worker.take(0, record(*conversations), encode(b"not a record")):
        each.acknowledge(0)
    await worker.drained()
    *before, last = sent_headers(worker.producer, topics.MESSAGES)
    assert before == [None] * len(before)
    assert last == [header_of(span) for span in spans.all()]


HOSTILE: list[Any] = [
    (TRACEPARENT, None),
    (TRACEPARENT, b""),
    (TRACEPARENT, b"\xff\x00"),
    (TRACEPARENT, UNSAMPLED.encode()),
    *((TRACEPARENT, value.encode()) for value in INVALID),
    ("Traceparent", SAMPLED.encode()),
]


def test_what_is_no_sampled_traceparent_is_passed_over(spans: Spans) -> None:
    received = Received(0, b"", lambda: None, HOSTILE)
    tracer = StreamTracer(spans.tracer)
    assert tracer.processing(0, [received]) is None
    assert tracer.inserting(traceparents(HOSTILE), topics.MESSAGES, 1) is None


def test_a_step_goes_on_with_so_many_traces_at_most(spans: Spans) -> None:
    headers = parents(*range(1, 2 * MAX_TRACES))
    begun = StreamTracer(spans.tracer).processing(0, [Received(0, b"", lambda: None, headers)])
    assert begun is not None
    assert len(begun.headers) == MAX_TRACES


async def test_an_insert_ends_the_traces_once_its_rows_are_written(spans: Spans) -> None:
    worker = ClickHouseWorker()
    worker.agent._tracer = StreamTracer(spans.tracer)
    running = asyncio.create_task(worker.agent.run())
    for offset, headers in enumerate([parents(1, 2), [], parents(3)]):
        await worker.agent.process(2, Received(offset, b"row", lambda: None, headers))
    worker.agent._full.set()
    await worker.sink.writing.get()
    await settled()
    assert spans.all() == []
    worker.sink.written.release()
    await settled()
    found = spans.all()
    assert [span.name for span in found] == [f"insert {topics.ANALYSES}"] * 3
    assert [parent_of(span) for span in found] == [(1, 1), (2, 2), (3, 3)]
    assert {(span.attributes or {})["db.operation.batch.size"] for span in found} == {9}
    await worker.agent.process(2, Received(3, b"row", lambda: None))
    worker.agent._full.set()
    worker.sink.written.release()
    await worker.agent.drained()
    assert len(spans.all()) == 3
    running.cancel()


def test_a_line_names_one_span_or_all_traces() -> None:
    (_, one), (_, other) = parents(1, 2)
    assert log_fields([]) == {}
    assert log_fields([one]) == {"trace_id": f"{1:032x}", "span_id": f"{1:016x}"}
    assert log_fields([one, other]) == {"trace_ids": [f"{1:032x}", f"{2:032x}"]}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector", "OTEL_SDK_DISABLED": "TRUE"},
    ],
    ids=str,
)
def test_without_a_collector_nothing_is_traced(environment: dict[str, str]) -> None:
    assert tracing.start("gateway", environment) is None


def test_where_the_extra_is_missing_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"openbat-capture\[tracing\]"):
        tracing.start("gateway", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"})


def test_nothing_of_it_is_imported_where_it_is_off() -> None:
    code = (
        "import sys, openbat.gateway_role, openbat.worker_role, openbat.clickhouse_writer\n"
        "from openbat import tracing\n"
        "assert tracing.start('gateway', {}) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
