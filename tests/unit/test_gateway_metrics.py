"""What a gateway exports: real parts of it, a producer without a broker, HTTP without a socket."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from aiokafka.errors import KafkaConnectionError
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from gateway.app import CAPTURE, make_app
from gateway.capture import Bounds, CaptureEndpoint
from gateway.limits import OFF, RateLimits
from gateway.metrics import MAX_CHATBOTS, OTHER, GatewayMetrics
from gateway.pace import Pace
from gateway.publisher import Publisher
from gateway.registry import Registry
from gateway.replies import Expected, Replies
from gateway.sender import Sender
from gateway.tracing import CaptureTracer
from openbat.chatbots import new_key, with_key
from openbat.gateway_role import _show_state
from schemas import sizes
from schemas.chatbots import Chatbot, ChatbotSettings, chatbot_codec
from schemas.records import CaptureResult, RepliesRecord
from tests.unit.fakes import LONG_SECONDS, NO_SETTINGS, FakeProducer, settled

KEY, LIMITED_KEY, UNKNOWN_KEY = new_key(), new_key(), new_key()
BODY = {"conversationId": "conv_1", "messages": [{"role": "user", "content": "Hello"}]}


def chatbot(number: int, name: str, key: str, settings: ChatbotSettings) -> Chatbot:
    made = Chatbot(
        id=str(UUID(int=number)),
        name=name,
        key_sha256=b"",
        key_prefix="",
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
        settings=settings,
    )
    return with_key(made, key)


class Gateway:
    """A gateway of two partitions, whose records the test acknowledges and replies to."""

    def __init__(
        self, tracer: CaptureTracer | None = None, producer: FakeProducer | None = None
    ) -> None:
        self.metrics = GatewayMetrics()
        self.producer = producer or FakeProducer()
        registry = Registry()
        for made in (
            chatbot(1, "free", KEY, NO_SETTINGS),
            chatbot(2, "limited", LIMITED_KEY, ChatbotSettings(rate_limit="1/hour")),
        ):
            registry.apply(UUID(made.id).bytes, chatbot_codec.encode(made))
        pace = Pace(0.0, 0.02)
        self.replies = Replies(LONG_SECONDS, LONG_SECONDS, pace, self.metrics)
        self.publisher: Publisher[Expected] = Publisher(
            Sender(
                self._make_producer,
                generation=lambda: 1,
                reply_partition=0,
                stop_seconds=LONG_SECONDS,
            ),
            self.replies.expect,
            partitions=2,
            pace=pace,
            timeout_seconds=LONG_SECONDS,
            metrics=self.metrics,
        )
        endpoint = CaptureEndpoint(
            registry,
            RateLimits("async+memory://", OFF),
            self.publisher,
            Bounds(sizes.DEFAULT_BODY, 30),
            self.metrics,
            tracer,
        )
        _show_state(self.metrics, self.publisher, self.replies, pace)

        async def unready() -> list[str]:
            return []

        def lifespan(_app: Starlette) -> None:
            raise AssertionError

        self.app = make_app(endpoint.post, unready, lifespan, "1", self.metrics)  # type: ignore[arg-type]
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    async def _make_producer(self) -> FakeProducer:
        return self.producer

    async def post(self, key: str = KEY, **headers: str) -> httpx.Response:
        return await self.client.post(
            CAPTURE, json=BODY, headers={"Authorization": f"Bearer {key}", **headers}
        )

    def value(self, sample: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(sample, labels)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    yield made
    await made.client.aclose()
    made.publisher._timeout_seconds = 0.01
    await made.publisher.close()


async def test_an_exact_answer_is_measured_at_each_of_its_steps(gateway: Gateway) -> None:
    posting = asyncio.create_task(gateway.post())
    sent = await gateway.producer.sent.get()
    assert gateway.value("openbat_pending_captures") == 1
    assert (gateway.value("openbat_pending_bytes") or 0) > len("Hello")
    assert gateway.value("openbat_durable_seconds_count") == 0
    sent.acknowledge(7)
    await settled()
    assert gateway.value("openbat_pending_captures") == 0
    assert gateway.value("openbat_replies_awaited") == 1
    assert gateway.value("openbat_durable_seconds_count") == 1
    assert gateway.value("openbat_captures_per_record_sum") == 1
    assert gateway.value("openbat_reply_seconds_count") == 0
    gateway.replies.receive(RepliesRecord(sent.partition, 7, [CaptureResult(1)]))
    assert (await posting).json()["messagesStored"] == 1
    assert gateway.value("openbat_replies_awaited") == 0
    assert gateway.value("openbat_reply_seconds_count") == 1
    assert gateway.value("openbat_exact_answer_seconds_count") == 1
    assert gateway.value("openbat_capture_seconds_count") == 1
    assert gateway.value("openbat_requests_total", status="200") == 1
    whole = gateway.value("openbat_capture_seconds_sum") or 0
    assert whole >= (gateway.value("openbat_exact_answer_seconds_sum") or 1)
    for reason in ("asked", "late"):
        assert gateway.value("openbat_provisional_answers_total", reason=reason) == 0


@pytest.mark.parametrize("wanted", ["respond-async", "wait=0"])
async def test_a_provisional_answer_that_was_asked_for_is_told_from_a_late_one(
    gateway: Gateway, wanted: str
) -> None:
    gateway.producer.acknowledging = True
    assert (await gateway.post(Prefer=wanted)).status_code == 200
    assert gateway.value("openbat_provisional_answers_total", reason="asked") == 1
    assert gateway.value("openbat_provisional_answers_total", reason="late") == 0
    assert gateway.value("openbat_exact_answer_seconds_count") == 0


async def test_late_replies_show_as_provisional_answers_and_an_open_breaker(
    gateway: Gateway,
) -> None:
    gateway.producer.acknowledging = True
    gateway.replies._wait_seconds = 0.01
    assert (await gateway.post()).status_code == 200
    assert gateway.value("openbat_provisional_answers_total", reason="late") == 1
    assert gateway.value("openbat_replies_late_partitions") == 1


async def test_a_late_log_shows_in_its_partitions_and_in_the_answers(gateway: Gateway) -> None:
    gateway.publisher._timeout_seconds = 0.01
    assert (await gateway.post()).status_code == 503
    assert gateway.value("openbat_log_late_partitions") == 1
    assert gateway.value("openbat_requests_total", status="503") == 1
    assert gateway.value("openbat_capture_seconds_count") == 0


async def test_a_record_that_kafka_refuses_counts_as_no_record(gateway: Gateway) -> None:
    gateway.producer.failing = KafkaConnectionError("no broker")
    assert (await gateway.post()).status_code == 503
    assert gateway.value("openbat_captures_per_record_count") == 0


async def test_refusals_are_counted_by_status_before_and_after_the_first(gateway: Gateway) -> None:
    assert gateway.value("openbat_requests_total", status="401") == 0
    assert (await gateway.post(UNKNOWN_KEY)).status_code == 401
    assert gateway.value("openbat_requests_total", status="401") == 1


async def test_an_answer_of_a_bug_is_counted_too(gateway: Gateway) -> None:
    gateway.publisher._lanes = []
    assert (await gateway.post()).status_code == 500
    assert gateway.value("openbat_requests_total", status="500") == 1


async def test_what_is_over_its_rate_is_counted_by_chatbot(gateway: Gateway) -> None:
    gateway.producer.acknowledging = True
    for _ in range(3):
        await gateway.post(LIMITED_KEY, Prefer="respond-async")
    assert gateway.value("openbat_rate_limited_total", chatbot="limited") == 2
    assert gateway.value("openbat_chatbot_captures_total", chatbot="limited") == 1
    assert gateway.value("openbat_requests_total", status="429") == 2


def test_only_so_many_chatbots_have_a_name() -> None:
    metrics = GatewayMetrics()
    names = [f"chatbot {number}" for number in range(MAX_CHATBOTS + 2)]
    for name in names * 2:
        metrics.rate_limited(name)
    value = metrics.registry.get_sample_value
    assert value("openbat_rate_limited_total", {"chatbot": names[MAX_CHATBOTS - 1]}) == 2
    assert value("openbat_rate_limited_total", {"chatbot": names[MAX_CHATBOTS]}) is None
    assert value("openbat_rate_limited_total", {"chatbot": OTHER}) == 4


async def test_metrics_are_served_on_the_gateways_port(gateway: Gateway) -> None:
    await gateway.post(UNKNOWN_KEY)
    answer = await gateway.client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    (refused,) = [
        sample.value
        for sample in families["openbat_requests"].samples
        if sample.name == "openbat_requests_total" and sample.labels == {"status": "401"}
    ]
    assert refused == 1
    assert families["openbat_ready"].samples[0].value == 1


async def test_who_comes_through_a_proxy_gets_no_metrics(gateway: Gateway) -> None:
    for name, value in {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=_x", "Via": "1"}.items():
        answer = await gateway.client.get("/metrics", headers={name: value})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
