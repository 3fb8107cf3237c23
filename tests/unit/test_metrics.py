"""Metrics: each counts from the start of its process, by labels that are few."""

from typing import get_args

from prometheus_client import generate_latest

from analysis.panel import Outcome
from openbat.metrics import Metrics
from schemas.dead_letters import REASONS


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
