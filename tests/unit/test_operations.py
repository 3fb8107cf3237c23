"""The runbook speaks of what there is, and has a heading for every alert."""

import re
from pathlib import Path

import pytest
from typer.main import get_group

from openbat import cli
from openbat.settings import PREFIX, Settings
from schemas import topics
from tests.stack import ROOT
from tests.unit.test_readme import commands_of

RUNBOOK = ROOT / "docs" / "operations.md"
TEXT = RUNBOOK.read_text()
FENCED = re.compile(r"```.*?```", re.DOTALL)
CODE = FENCED.findall(TEXT) + re.findall(r"`([^`]+)`", FENCED.sub("", TEXT))
ROOMS = ("analysis", "gateway", "openbat", "schemas", "sinks", "streams")


def anchors(document: Path) -> set[str]:
    """Return what a document's headings are called in a link, as GitHub makes it."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_alert_has_a_heading_and_no_other_has_one() -> None:
    alerts = re.findall(r"alert: (\w+)", (ROOT / "deploy" / "alerts.yml").read_text())
    told = re.findall(r"^### (Openbat\w+)$", TEXT, re.MULTILINE)
    assert sorted(told) == sorted(set(alerts))


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    sections = re.split(r"^### Openbat\w+$", TEXT, flags=re.MULTILINE)[1:]
    assert sections
    for section in sections:
        meaning, *steps = re.split(r"^- ", section, flags=re.MULTILINE)
        assert meaning.strip(), section
        assert steps, section


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert len(links) > 20
    for link in links:
        name, _, anchor = link.partition("#")
        target = (RUNBOOK.parent / name).resolve() if name else RUNBOOK
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_setting_is_one_of_ours() -> None:
    imports = "OPENBAT_API_KEY"  # read by `openbat import` alone
    known = {PREFIX + name.upper() for name in Settings.__struct_fields__} | {imports}
    named = set(re.findall(r"OPENBAT_[A-Z_]+", TEXT))
    assert named
    assert named <= known


def test_every_command_is_one_of_ours() -> None:
    commands = list(commands_of(get_group(cli.app)))
    found = {
        tuple(match.split())
        for code in CODE
        for match in re.findall(
            r"(?<!namespace )\b(openbat(?: [a-z][a-z-]*){1,2})", " ".join(code.split())
        )
    }
    assert ("openbat", "dead-letters", "list") in found
    for words in found:
        assert any(" ".join(words[:count]) in commands for count in (2, 3)), words


def test_a_topics_retention_is_set_back_to_what_it_was_made_with() -> None:
    section = TEXT.partition("### OpenbatRetentionNear")[2].partition("### ")[0]
    assert "--delete-config`: " in section
    made = {topic.name: topic.config.get("retention.ms") for topic in topics.TOPICS}
    back, of_letters = re.findall(r"retention\.ms=(\d+)", section)[1:]
    named = re.search(r"right for ([^;]+);", section)
    assert named
    for name in re.findall(r"`([a-z-]+)`", named[1]):
        assert made[name] == back, name
    assert made[topics.DEAD_LETTERS] == of_letters


SOURCES = "".join(path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bopenbat_[a-z_]+", TEXT))))
def test_every_metric_and_role_is_one_of_ours(name: str) -> None:
    granted = (ROOT / "sinks" / "grants.sql").read_text()
    assert f'"{name.removesuffix("_total")}"' in SOURCES or f"ROLE IF NOT EXISTS {name};" in granted
