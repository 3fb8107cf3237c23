"""From records of `analyses` to ClickHouse's rows."""

import math
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import OperationalError
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace
from tenacity import wait_none

from schemas import topics
from schemas.analyses import Analysed, Analysis, Finding, analyses_codec
from schemas.analysis import KINDS
from schemas.codec import UndecodableError
from schemas.dead_letters import Source
from schemas.records import encode
from schemas.times import LAST_INSTANT
from sinks import writer
from sinks.analysis_rows import ANALYSIS_COLUMNS, ANALYSIS_TABLE, AnalysisBatch
from sinks.writer import ClickHouseWriter
from tests import rows
from tests.unit.test_sinks import POISON, FakeClient

CHATBOT, CONVERSATION = b"\1" * 16, b"\2" * 16
NEGATIVE = Finding("sentiment", "negative", (), -0.5, "it says awful")
RESULT = Analysis(
    "msg_1", "offline", "3", received_at=200, position=2**64 - 1, revision=0, analysed_at=300,
    findings=(NEGATIVE,), run=4,
)  # fmt: skip

times = st.integers(0, LAST_INSTANT)
labels = st.text(max_size=64)
names = st.text(min_size=1, max_size=64)
numbers = st.integers(0, 2**62)
findings = st.builds(
    Finding,
    st.sampled_from(KINDS), labels, st.lists(labels, max_size=20), st.none() | st.floats(-1, 1),
    st.text(max_size=500),
)  # fmt: skip
results = st.builds(
    Analysis,
    st.text(max_size=20), names, names, times, st.integers(0, 2**64 - 1), numbers, times,
    st.lists(findings, max_size=4), numbers,
)  # fmt: skip
uuids = st.binary(min_size=16, max_size=16)
records = st.lists(st.builds(Analysed, uuids, uuids, st.lists(results, max_size=4)), max_size=4)


def record(*of: Analysis) -> bytes:
    return analyses_codec.encode([Analysed(CHATBOT, CONVERSATION, list(of))])


def named(*labels: str) -> Analysis:
    return replace(RESULT, findings=tuple(Finding("intent", label) for label in labels))


def batch_of(*values: bytes) -> AnalysisBatch:
    batch = AnalysisBatch()
    for offset, value in enumerate(values):
        assert batch.add(value, 7, offset) == []
    return batch


def found(batch: AnalysisBatch) -> list[dict[str, Any]]:
    return rows.rows(batch.analyses.encoded, ANALYSIS_COLUMNS)


def shared(of: Analysed, result: Analysis) -> dict[str, Any]:
    """Return what a row has, whichever finding it is of."""
    members = {"chatbot_id": of.chatbot_id, "conversation_id": of.conversation_id, **asdict(result)}
    del members["findings"]
    return members


def test_each_finding_becomes_a_row() -> None:
    both = replace(RESULT, findings=(NEGATIVE, Finding("flags", labels=("abuse", "vip"))))
    batch = batch_of(record(both))
    of_sentiment, of_flags = found(batch)
    assert of_flags == of_sentiment | {
        "kind": "flags", "label": "", "labels": ["abuse", "vip"], "score": None, "reasoning": "",
    }  # fmt: skip
    assert of_sentiment == (
        {
            "chatbot_id": CHATBOT,
            "conversation_id": CONVERSATION,
            "message_id": "msg_1",
            "kind": "sentiment",
            "analyzer": "offline",
            "version": "3",
            "score": -0.5,
            "label": "negative",
            "labels": [],
            "reasoning": "it says awful",
            "received_at": 200,
            "position": 2**64 - 1,
            "revision": 0,
            "analysed_at": 300,
            "run": 4,
        }
    )
    assert batch.rows == 2
    assert batch.tables == (batch.analyses,)


@given(st.lists(records, max_size=3))
def test_every_finding_has_one_row_and_each_row_a_record_that_makes_it_again(
    given_records: list[list[Analysed]],
) -> None:
    batch = batch_of(*map(analyses_codec.encode, given_records))
    expected = [
        (
            Source(topics.ANALYSES, 7, offset, index),
            shared(of, result) | asdict(finding),
        )
        for offset, each in enumerate(given_records)
        for index, (of, result, finding) in enumerate(
            (of, result, finding)
            for of in each
            for result in of.results
            for finding in result.findings
        )
    ]
    assert found(batch) == [row for _, row in expected]
    assert batch.rows == len(expected)
    for index, (source, row) in enumerate(expected):
        letter, value = batch.analyses.rejected(index, ValueError())
        assert (letter.reason, letter.source) == ("rejected_row", source)
        assert found(batch_of(value)) == [row]


def test_members_of_a_later_release_are_passed_over() -> None:
    result = asdict(RESULT) | {"findings": [[*asdict(NEGATIVE).values(), "later"]]}
    grown = [[CHATBOT, CONVERSATION, [[*result.values(), "later"]], "later"]]
    assert found(batch_of(b"\1" + encode(grown))) == found(batch_of(record(RESULT)))


def test_a_result_of_no_re_analysis_may_leave_the_run_out() -> None:
    short = [[CHATBOT, CONVERSATION, [[*asdict(RESULT).values()][:-1]]]]
    assert found(batch_of(b"\1" + encode(short)))[0]["run"] == 0


NOT_A_LABEL = "x" * 65


@pytest.mark.parametrize(
    "value",
    [
        b"",
        record(RESULT)[:-1],
        b"\2" + record(RESULT)[1:],
        analyses_codec.encode([Analysed(b"short", CONVERSATION, [])]),
        *(
            record(RESULT, replace(RESULT, **unfit))
            for unfit in (
                {"message_id": "i" * 1000},
                {"analyzer": ""},
                {"analyzer": NOT_A_LABEL},
                {"version": NOT_A_LABEL},
                {"received_at": -1},
                {"received_at": LAST_INSTANT + 1},
                {"position": -1},
                {"revision": 2**63},
                {"analysed_at": LAST_INSTANT + 1},
                {"run": -1},
            )
        ),
        *(
            record(RESULT, replace(RESULT, findings=(NEGATIVE, replace(NEGATIVE, **unfit))))
            for unfit in (
                {"kind": "mood"},
                {"score": 1.5},
                {"score": math.nan},
                {"label": NOT_A_LABEL},
                {"label": None},
                {"labels": [NOT_A_LABEL]},
                {"labels": ["x"] * 101},
                {"reasoning": "x" * 501},
            )
        ),
    ],
)  # fmt: skip
def test_of_a_record_that_columns_cannot_hold_no_row_is_added(value: bytes) -> None:
    batch = batch_of(record(RESULT))
    with pytest.raises(UndecodableError) as error:
        batch.add(value, 0, 1)
    assert NOT_A_LABEL not in str(error.value)
    assert batch.rows == 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr(writer, "wait_random_exponential", lambda **_: wait_none())
    return FakeClient()


async def test_one_poison_row_is_found_and_all_others_are_written(client: FakeClient) -> None:
    client.failing = [OperationalError("away")]
    sent = [f"i{number}" for number in range(200)]
    sent[99] = POISON
    batch = batch_of(record(RESULT), record(*map(named, sent[::2], sent[1::2])))
    (rejected,) = await ClickHouseWriter(client).write(batch)
    assert rejected.letter.source == Source(topics.ANALYSES, 7, 1, 99)
    assert rejected.value == record(named(POISON))
    stored = [row["label"] for row in client.stored[ANALYSIS_TABLE]]
    assert stored == ["negative", *(label for label in sent if label != POISON)]
    assert {table for table, _ in client.inserts} == {ANALYSIS_TABLE}
