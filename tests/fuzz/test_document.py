"""schemathesis: what the OpenAPI document allows and what it forbids is answered as it says."""

from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.fuzz.cases import Cases
from tests.fuzz.conftest import Effort
from tests.report import Report
from tests.stack import Stack

DOCUMENT = "document"
SHORT, LONG = 40, 1_000

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [
    ("capture", POSITIVE),
    ("capture", NEGATIVE),
    # These take nothing that could be wrong.
    ("health", POSITIVE),
    ("readiness", POSITIVE),
    ("document", POSITIVE),
]


@pytest.fixture(scope="module", autouse=True)
def _date_times() -> None:
    """Make the date-times that are taken: the document says in words which years those are."""
    instants = st.datetimes(datetime(1900, 1, 2), datetime(2299, 12, 30), timezones=st.just(UTC))
    schemathesis.openapi.format("date-time", instants.map(datetime.isoformat))


@pytest.fixture(scope="module")
def document(hostile: Stack) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{hostile.gateway_url}/openapi.json")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("operation_id", "mode"), OPERATIONS)
def test_answers_are_as_the_document_says(
    hostile: Stack,
    document: OpenApiSchema,
    effort: Effort,
    report: Report,
    cases: Cases,
    operation_id: str,
    mode: GenerationMode,
) -> None:
    operation = document.find_operation_by_id(operation_id)
    authorization = {"Authorization": f"Bearer {hostile.state['api_key']}"}
    seen: dict[int, int] = {}

    @effort(SHORT, LONG)
    @given(operation.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        if mode is POSITIVE and case.headers:
            case.headers.pop("Content-Encoding", None)  # the body is made without regard to it
        cases.add(DOCUMENT)
        answer = case.call(base_url=hostile.gateway_url, headers=authorization)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        case.validate_response(answer)

    answers()
    report.add(
        f"document: {mode.value} cases of {operation_id}",
        ", ".join(f"{count} x {status}" for status, count in sorted(seen.items())),
        bound="as the document says, none 5xx",
        holds=all(status < 500 for status in seen),
    )
    assert all(status < 500 for status in seen)
