"""What a gateway measures, for Prometheus.

A capture pays some 3 microseconds for them. What the gateway knows anyway is read when it is asked
for, and may be read from any thread.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MAX_CHATBOTS = 100
"""Whose names are told: a label of more values costs Prometheus memory without end."""
OTHER = "other"

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_CAPTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_STATUSES = (200, 400, 401, 403, 413, 415, 429, 500, 503)


class _ByChatbot:
    """A counter by a chatbot's name: of the first MAX_CHATBOTS each, of the others together."""

    def __init__(self, name: str, help_: str, registry: CollectorRegistry) -> None:
        self._counter = Counter(name, help_, ["chatbot"], registry=registry)
        self._counters: dict[str, Counter] = {}

    def inc(self, chatbot: str) -> None:
        counter = self._counters.get(chatbot)
        if counter is None:
            is_known = len(self._counters) < MAX_CHATBOTS
            counter = self._counter.labels(chatbot if is_known else OTHER)
            if is_known:
                self._counters[chatbot] = counter
        counter.inc()


class GatewayMetrics:
    """The metrics of one gateway, in a registry of their own.

    Attributes:
        registry: what is exported.
        ready, pending_captures, pending_bytes, log_late, replies_late, replies_awaited, linger:
            gauges, to be given a function that says what they are now.

    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        requests = Counter(
            "openbat_requests",
            "Captures that the gateway answered, by HTTP status.",
            ["status"],
            registry=registry,
        )
        # From the start, so that an alert sees the first one come; a look-up by label is slow.
        self._requests = {status: requests.labels(status) for status in _STATUSES}
        self._other_requests = requests
        self._capture_seconds = self._histogram(
            "openbat_capture_seconds",
            "From a capture's request to its answer, of those that were answered with 200.",
        )
        self._exact_seconds = self._histogram(
            "openbat_exact_answer_seconds",
            "From a capture, once it is read, to its exact count.",
        )
        provisional = Counter(
            "openbat_provisional_answers",
            "Captures answered without the exact count: their client asked for it, or it was late.",
            ["reason"],
            registry=registry,
        )
        self._asked, self._late = provisional.labels("asked"), provisional.labels("late")
        others = f"from {MAX_CHATBOTS} chatbots on, as `{OTHER}`."
        self._taken = _ByChatbot(
            "openbat_chatbot_captures", f"Captures that became durable; {others}", registry
        )
        self._rate_limited = _ByChatbot(
            "openbat_rate_limited", f"Captures over their chatbot's rate; {others}", registry
        )
        self._durable_seconds = self._histogram(
            "openbat_durable_seconds",
            "From a record's first capture to the record's acknowledgement by Kafka.",
        )
        self._captures_per_record = self._histogram(
            "openbat_captures_per_record",
            "Captures in a record that Kafka acknowledged.",
            _CAPTURES,
        )
        self._reply_seconds = self._histogram(
            "openbat_reply_seconds",
            "From a record's acknowledgement to the conversations worker's reply.",
        )
        self.ready = self._gauge("openbat_ready", "1 once the process can do its work.")
        self.pending_captures = self._gauge(
            "openbat_pending_captures", "Captures that wait for Kafka's acknowledgement."
        )
        self.pending_bytes = self._gauge("openbat_pending_bytes", "Their size.")
        self.log_late = self._gauge(
            "openbat_log_late_partitions",
            "Partitions whose captures are refused because Kafka is late.",
        )
        self.replies_late = self._gauge(
            "openbat_replies_late_partitions",
            "Partitions whose captures are answered provisionally because replies are late.",
        )
        self.replies_awaited = self._gauge(
            "openbat_replies_awaited", "Records whose replies have not come yet."
        )
        self.linger = self._gauge(
            "openbat_linger_seconds", "How long captures are collected before they are sent."
        )

    def _histogram(self, name: str, help_: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        return Histogram(name, help_, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(name, help_, registry=self.registry)

    def answered(self, status: int, seconds: float) -> None:
        """Take in that a capture is answered, so long after its request came."""
        known = self._requests.get(status)
        (known or self._other_requests.labels(status)).inc()
        if status == 200:
            self._capture_seconds.observe(seconds)

    def exact(self, seconds: float) -> None:
        """Take in that a capture's exact count came, so long after it was read."""
        self._exact_seconds.observe(seconds)

    def provisional(self, *, asked: bool) -> None:
        """Take in an answer without the exact count, and whether its client wanted it so."""
        (self._asked if asked else self._late).inc()

    def rate_limited(self, chatbot: str) -> None:
        """Take in that a capture is over the rate of the chatbot of this name."""
        self._rate_limited.inc(chatbot)

    def taken(self, chatbot: str) -> None:
        """Take in that a capture of the chatbot of this name became durable."""
        self._taken.inc(chatbot)

    def acknowledged(self, captures: int, seconds: float) -> None:
        """Take in a record of so many captures, so long after the first of them."""
        self._captures_per_record.observe(captures)
        self._durable_seconds.observe(seconds)

    def replied(self, seconds: float) -> None:
        """Take in a record's reply, so long after its acknowledgement."""
        self._reply_seconds.observe(seconds)
