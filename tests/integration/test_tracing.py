"""One trace from the POST to the row, on the real stack, with a collector that the test is."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.stack import Stack, local_stack, wait_until

CAPTURE = "/api/v1/capture"
STEPS = ["POST /api/v1/capture", "send captures", "process captures", "insert messages"]
SERVICES = ["openbat-gateway", "openbat-gateway", "openbat-conversations", "openbat-clickhouse"]
UNTOLD = "secret-content"
AT_ONCE = 40


class Exported(NamedTuple):
    """A span as the collector was sent it."""

    service: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: int
    end: int
    attributes: dict[str, Any]


class Collector:
    """Takes OTLP over HTTP, https://opentelemetry.io/docs/specs/otlp/#otlphttp."""

    def __init__(self) -> None:
        self.spans: list[Exported] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = attributes_of(resource.resource)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [
                    Exported(
                        service,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.name,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        attributes_of(span),
                    )
                    for span in scope.spans
                ]

    def trace(self, trace_id: str) -> list[Exported]:
        """Return a trace's spans, each after its parent."""
        return sorted(
            (span for span in list(self.spans) if span.trace_id == trace_id),
            key=lambda span: STEPS.index(span.name),
        )

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def attributes_of(message: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in message.attributes
    }


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    """Return a stack that traces what its clients sample, and nothing else."""
    with local_stack(
        tmp_path_factory.mktemp("traced"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
        NO_PROXY="127.0.0.1",
        OPENBAT_TRACE_RATIO="0",
        OPENBAT_LOG_LEVEL="debug",
    ) as running:
        yield running


@pytest.fixture
def client(traced: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=traced.gateway_url,
        headers={"Authorization": f"Bearer {traced.state['api_key']}"},
        timeout=30,
        trust_env=False,
    ) as made:
        yield made


def body(conversation: str) -> dict[str, Any]:
    message = {"id": "m", "role": "user", "content": UNTOLD}
    return {"conversationId": conversation, "messages": [message]}


def traceparent(number: int, flags: int = 1) -> str:
    return f"00-{number:032x}-{number:016x}-{flags:02x}"


def rows(conversations: str) -> str:
    return (
        "SELECT count() AS rows FROM openbat.messages "
        f"WHERE startsWith(external_conversation_id, '{conversations}')"
    )


def log_lines(stack: Stack, name: str) -> list[dict[str, Any]]:
    text = (stack.data_dir / "logs" / f"{name}-0.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def assert_whole(spans: list[Exported], number: int) -> None:
    """Assert that these are a trace from the request to the insert."""
    assert [span.name for span in spans] == STEPS
    assert [span.service for span in spans] == SERVICES
    parents = [f"{number:016x}", *(span.span_id for span in spans[:-1])]
    assert [span.parent_id for span in spans] == parents
    starts = [span.start for span in spans]
    assert starts == sorted(starts)


def test_one_trace_leads_from_the_post_to_the_insert_of_the_row(
    traced: Stack, collector: Collector, client: httpx.Client
) -> None:
    given = [{"traceparent": traceparent(1)}, {"traceparent": traceparent(2, flags=0)}, {}]
    for number, headers in enumerate(given):
        answer = client.post(CAPTURE, json=body(f"one_{number}"), headers=headers)
        assert answer.json()["messagesStored"] == 1
    assert traced.wait_sql(rows("one_"), [{"rows": 3}]) == [{"rows": 3}]
    wait_until(lambda: len(collector.trace(f"{1:032x}")) == 4, 20, "the trace")
    spans = collector.trace(f"{1:032x}")
    assert_whole(spans, 1)
    server, _, process, insert = (span.attributes for span in spans)
    assert server["http.response.status_code"] == 200
    assert server["openbat.chatbot.id"] == traced.state["chatbot_id"]
    assert server["openbat.messages"] == 1
    assert process["messaging.destination.name"] == "captures"
    assert insert["db.operation.batch.size"] > 0
    assert {span.trace_id for span in collector.spans} == {f"{1:032x}"}
    told = repr(collector.spans)
    assert UNTOLD not in told
    assert str(traced.state["api_key"]) not in told


async def test_captures_that_share_records_keep_their_own_traces(
    traced: Stack, collector: Collector
) -> None:
    numbers = range(100, 100 + AT_ONCE)
    async with httpx.AsyncClient(
        base_url=traced.gateway_url,
        headers={"Authorization": f"Bearer {traced.state['api_key']}"},
        timeout=30,
        trust_env=False,
    ) as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    CAPTURE,
                    json=body(f"shared_{number}"),
                    headers={"traceparent": traceparent(number)},
                )
                for number in numbers
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    expected = [{"rows": AT_ONCE}]
    assert await asyncio.to_thread(traced.wait_sql, rows("shared_"), expected) == expected
    traces = [f"{number:032x}" for number in numbers]
    await asyncio.to_thread(
        wait_until, lambda: all(len(collector.trace(each)) == 4 for each in traces), 20, "traces"
    )
    for number, trace_id in zip(numbers, traces, strict=True):
        assert_whole(collector.trace(trace_id), number)
    records = {
        (
            span.attributes["messaging.destination.partition.id"],
            span.attributes["messaging.kafka.offset"],
        )
        for trace_id in traces
        for span in collector.trace(trace_id)
        if span.name == "process captures"
    }
    assert len(records) < AT_ONCE


def test_every_answer_names_its_request_and_so_does_the_log(
    traced: Stack, collector: Collector, client: httpx.Client
) -> None:
    sent = {"X-Request-Id": "mine"}
    answers = [
        client.post(CAPTURE, json=body("named"), headers=sent),
        client.post(CAPTURE, content=b"{", headers={"Content-Type": "application/json", **sent}),
        client.post(CAPTURE, content=b"x" * (1 << 21), headers=sent),
        client.get("/healthz", headers=sent),
        client.get("/nowhere", headers=sent),
        client.get(CAPTURE, headers=sent),
    ]
    assert [each.status_code for each in answers] == [200, 400, 415, 200, 404, 405]
    assert {each.headers["x-request-id"] for each in answers} == {"mine"}
    ours = {client.get("/healthz").headers["x-request-id"] for _ in range(3)}
    assert len(ours) == 3
    refused = client.post(
        CAPTURE,
        json=body("named"),
        headers={"Authorization": "Bearer secret", "traceparent": traceparent(7), **sent},
    )
    assert refused.status_code == 401
    lines = [line for line in log_lines(traced, "gateway") if line["event"] == "refused"]
    assert {line["request_id"] for line in lines} == {"mine"}
    assert [line["status"] for line in lines] == [400, 415, 404, 405, 401]
    assert [line.get("trace_id") for line in lines] == [None] * 4 + [f"{7:032x}"]
    wait_until(lambda: collector.trace(f"{7:032x}"), 20, "the refused request's span")
    (span,) = collector.trace(f"{7:032x}")
    assert span.attributes["http.response.status_code"] == 401
    assert span.attributes["openbat.request_id"] == "mine"
    assert lines[-1]["span_id"] == span.span_id
