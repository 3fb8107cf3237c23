"""Metrics: each counts from the start of its process, by labels that are few."""

from typing import get_args

import pytest
from clickhouse_connect.driver.exceptions import OperationalError
from prometheus_client import CollectorRegistry, generate_latest
from tenacity import wait_none

from analysis.panel import Outcome
from openbat.metrics import InsertMetrics, Metrics
from schemas.dead_letters import REASONS
from sinks import writer
from sinks.rows import CONVERSATION_TABLE, MESSAGE_TABLE
from sinks.writer import ClickHouseWriter
from tests.stack import ROOT
from tests.unit.exported import exported
from tests.unit.test_sinks import POISON, FakeClient, batch_of, messages, record, state

DOCUMENT = ROOT / "docs" / "metrics.md"
BEGIN = "<!-- metrics: made from what is exported, checked by a test -->\n"
END = "<!-- /metrics -->"


def text_of(metrics: Metrics) -> list[str]:
    return generate_latest(metrics.registry).decode().splitlines()


def test_every_reason_of_a_letter_is_there_before_the_first_letter() -> None:
    shown = text_of(Metrics())
    assert "failed_analysis" in REASONS
    for reason in REASONS:
        assert f'openbat_dead_letters_total{{reason="{reason}"}} 0.0' in shown


def test_subjects_are_counted_by_analyzer_and_outcome() -> None:
    metrics = Metrics()
    for outcome in get_args(Outcome):
        metrics.analysed("offline", outcome, 3)
    metrics.analysed("offline", "analysed", 4)
    metrics.analysed("llm:model", "failed", 1)
    counted = 'openbat_analysed_total{analyzer="%s",outcome="%s"} %.1f'
    shown = text_of(metrics)
    assert counted % ("offline", "analysed", 7) in shown
    assert counted % ("offline", "over_budget", 3) in shown
    assert counted % ("offline", "fallback", 3) in shown
    assert counted % ("llm:model", "failed", 1) in shown


def test_metrics_of_two_processes_are_apart() -> None:
    one, other = Metrics(), Metrics()
    one.dead_letter("failed_analysis")
    counted = 'openbat_dead_letters_total{reason="failed_analysis"} %.1f'
    assert counted % 1 in text_of(one)
    assert counted % 0 in text_of(other)


async def metrics_table() -> str:
    """Return the table that docs/metrics.md must hold; what several processes have is one row."""
    processes: dict[tuple[str, ...], list[str]] = {}
    for each in await exported():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        row = (f"`{each.name}`", each.kind, labels, each.documentation)
        processes.setdefault(row, []).append(each.process)
    lines = ["| metric | kind | labels | of | |", "|---|---|---|---|---|"]
    for (name, kind, labels, documentation), of in processes.items():
        lines.append(f"| {name} | {kind} | {labels} | {', '.join(of)} | {documentation} |")
    return "\n".join(lines) + "\n"


async def test_every_metric_is_documented() -> None:
    document = DOCUMENT.read_text()
    assert document[document.index(BEGIN) + len(BEGIN) : document.index(END)] == (
        await metrics_table()
    )


async def test_no_two_metrics_of_one_name_differ() -> None:
    kinds: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for each in await exported():
        kinds.setdefault(each.name, set()).add((each.kind, each.labels))
    assert all(len(found) == 1 for found in kinds.values())


async def test_names_keep_to_prometheus_own_rules() -> None:
    """A prefix, base units; see https://prometheus.io/docs/practices/naming/."""
    for each in await exported():
        assert each.name.startswith("openbat_")
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.documentation.endswith(".")
        assert not each.name.endswith(("_milliseconds", "_ms", "_mebibytes"))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr(writer, "wait_random_exponential", lambda **_: wait_none())
    return FakeClient()


async def test_inserts_their_rows_and_their_repetitions_are_counted(client: FakeClient) -> None:
    registry = CollectorRegistry()
    inserts = InsertMetrics(registry, [MESSAGE_TABLE, CONVERSATION_TABLE])
    value = registry.get_sample_value
    assert value("openbat_insert_retries_total", {"table": MESSAGE_TABLE}) == 0
    client.failing = [OperationalError("away"), OperationalError("away")]
    writing = ClickHouseWriter(client, inserts.inserted, inserts.repeated)
    assert await writing.write(batch_of(record((state(), messages("a", "b"))))) == []
    for table, rows, retries in ((MESSAGE_TABLE, 2, 2), (CONVERSATION_TABLE, 1, 0)):
        assert value("openbat_rows_total", {"table": table}) == rows
        assert value("openbat_insert_seconds_count", {"table": table}) == 1
        assert value("openbat_insert_retries_total", {"table": table}) == retries


async def test_a_row_that_is_never_taken_counts_as_no_row(client: FakeClient) -> None:
    registry = CollectorRegistry()
    inserts = InsertMetrics(registry, [MESSAGE_TABLE])
    writing = ClickHouseWriter(client, inserts.inserted, inserts.repeated)
    assert len(await writing.write(batch_of(record((state(), messages("a", POISON)))))) == 1
    value = registry.get_sample_value
    assert value("openbat_rows_total", {"table": MESSAGE_TABLE}) == 1
    assert value("openbat_insert_retries_total", {"table": MESSAGE_TABLE}) == 0
