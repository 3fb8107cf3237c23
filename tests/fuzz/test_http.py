"""Whatever a client sends: no answer of 5xx, none that hangs, and no neighbour that is lost."""

from collections import Counter

import httpx
import pytest
from hypothesis import given

from tests.fuzz import corpus
from tests.fuzz.cases import Cases
from tests.fuzz.conftest import Effort
from tests.fuzz.http_strategies import streams
from tests.fuzz.neighbours import Neighbours
from tests.fuzz.wire import assert_in_shape, exchange
from tests.report import Report
from tests.stack import Stack

SHORT, LONG = 300, 25_000
HTTP = "http"
KEY = b"KEY"
"""Stands in the corpus for the key of the stack that is running."""


def test_what_was_found_before(
    hostile: Stack, neighbours: Neighbours, cases: Cases, report: Report
) -> None:
    url = httpx.URL(hostile.gateway_url)
    key = str(hostile.state["api_key"]).encode()
    for entry in corpus.entries(HTTP):
        data = entry.data.replace(KEY, key)
        with cases.case(HTTP, entry.data):
            for answer in exchange(url, data):
                assert_in_shape(answer)
    report.add("HTTP: inputs that are kept", len(corpus.entries(HTTP)), bound="no 5xx, no hang")


@pytest.mark.timeout(3600)
def test_whatever_a_client_sends(
    hostile: Stack, neighbours: Neighbours, cases: Cases, effort: Effort, report: Report
) -> None:
    url = httpx.URL(hostile.gateway_url)
    key = str(hostile.state["api_key"])
    statuses: Counter[int] = Counter()

    @effort(SHORT, LONG)
    @given(streams("KEY", corpus.seeds(HTTP)))
    def send(data: bytes) -> None:
        with cases.case(HTTP, data):
            for answer in exchange(url, data.replace(KEY, key.encode())):
                statuses[answer.status] += 1
                assert_in_shape(answer)

    send()
    report.add("HTTP: connections", cases.count(HTTP), bound="no 5xx, no hang")
    report.add(
        "HTTP: answers",
        ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())),
    )
    assert statuses[200]
    assert statuses[400]
