"""Alert rules, dashboard and runbook speak of metrics and labels that are really exported."""

import re
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from gateway.publisher import MAX_PENDING_BYTES, MAX_PENDING_CAPTURES
from openbat.health import LOOK_SECONDS
from schemas import topics
from tests.stack import ROOT
from tests.unit.exported import exported, series

SEVERITIES = {"critical", "warning", "info"}
UP = {"up": {"job", "instance"}}
"""What Prometheus exports of every target by itself."""
TARGET = {"job", "instance"}
KEPT_SECONDS = 7 * 86_400


class Rule(Struct, forbid_unknown_fields=True):
    """An alert rule of Prometheus."""

    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    hold: str = msgspec.field(name="for", default="0m")


class Group(Struct, forbid_unknown_fields=True):
    """A group of rules."""

    name: str
    rules: list[Rule]


class Rules(Struct, forbid_unknown_fields=True):
    """A file of rules."""

    groups: list[Group]


def rules() -> list[Rule]:
    read = msgspec.yaml.decode((ROOT / "deploy/alerts.yml").read_bytes(), type=Rules)
    return [rule for group in read.groups for rule in group.rules]


def panels() -> list[dict[str, Any]]:
    dashboard = msgspec.json.decode((ROOT / "deploy/dashboard.json").read_bytes())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def told() -> list[str]:
    """Return the queries that the runbook tells to ask."""
    text = (ROOT / "docs/operations.md").read_text()
    code = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [each for each in code if re.search(r"\bopenbat_\w+[{\[]", each)]


def queries() -> list[str]:
    """Return every query of the rules, of the dashboard and of the runbook."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return sorted({*(rule.expr for rule in rules()), *shown, *told()})


def test_the_runbook_tells_how_to_see_what_is_hot() -> None:
    assert len([query for query in told() if query.startswith("topk(")]) >= 3


@pytest.fixture(scope="module")
async def labels_of() -> dict[str, set[str]]:
    """Return the labels of each series that may be asked for."""
    known: dict[str, set[str]] = dict(UP)
    for each in await exported():
        buckets = {"le"} if each.kind == "histogram" else set()
        for name in series(each):
            known[name] = {*each.labels, *buckets} | TARGET
    return known


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:openbat_\w+|up(?=\{))", query))


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_what_is_exported(query: str, labels_of: dict[str, set[str]]) -> None:
    names = names_in(query)
    assert names
    assert names <= labels_of.keys()
    for name, matched in re.findall(r"(\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)\s*[=!]", matched)) <= labels_of[name]
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        for name in names:
            assert set(re.split(r",\s*", grouped)) <= labels_of[name]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.alert)
def test_a_rule_says_what_is_wrong_and_where_to_read_on(
    rule: Rule, labels_of: dict[str, set[str]]
) -> None:
    assert rule.labels["severity"] in SEVERITIES
    assert re.fullmatch(r"\d+m", rule.hold)
    assert rule.annotations.keys() == {"summary", "runbook"}
    assert rule.annotations["summary"].endswith(".")
    path, _, anchor = rule.annotations["runbook"].partition("#")
    assert path == "docs/operations.md"
    assert anchor == rule.alert.lower()
    assert f"### {rule.alert}\n" in (ROOT / path).read_text()
    told = set(re.findall(r"\$labels\.(\w+)", rule.annotations["summary"]))
    kept = re.findall(r"by \(([^)]*)\)", rule.expr)
    if kept:
        assert told <= set(re.split(r",\s*", kept[0]))
    else:
        assert all(told <= labels_of[name] for name in names_in(rule.expr))


def test_no_alert_is_there_twice() -> None:
    names = [rule.alert for rule in rules()]
    assert len(set(names)) == len(names)


def test_thresholds_go_with_what_they_watch() -> None:
    by_name = {rule.alert: rule.expr for rule in rules()}
    full = by_name["OpenbatGatewayFull"]
    assert f"openbat_pending_captures > {MAX_PENDING_CAPTURES * 8 // 10} " in full
    assert full.endswith(f"openbat_pending_bytes > {MAX_PENDING_BYTES * 8 // 10}")
    assert by_name["OpenbatWorkerStuck"].endswith(f">= {LOOK_SECONDS:g}")
    assert "4 * 86400" in by_name["OpenbatRetentionNear"]
    for topic in topics.TOPICS:
        if topic.name in {topics.CAPTURES, topics.MESSAGES, topics.ANALYSIS, topics.ANALYSES}:
            assert topic.config["retention.ms"] == str(KEPT_SECONDS * 1000)


def test_every_metric_is_on_the_dashboard(labels_of: dict[str, set[str]]) -> None:
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for panel in panels()
        for target in panel["targets"]
        for name in names_in(target["expr"])
    }
    there = {re.sub(r"_(bucket|sum|count)$", "", name) for name in labels_of} - {"up"}
    assert shown == there


def test_panels_do_not_overlap() -> None:
    places: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places
        places |= cells
