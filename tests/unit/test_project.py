"""What surrounds the code names what is there: the gate, the hooks, the notices."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from packaging.requirements import Requirement

from tests.stack import CONTAINERS, ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"
PROJECT = "openbat-capture"


def targets() -> set[str]:
    """Return what can be made."""
    rules = re.findall(r"^([a-z][\w -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def gate() -> list[str]:
    return (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_workflow_runs_the_gate_and_the_tests_on_containers() -> None:
    jobs: dict[str, Any] = msgspec.yaml.decode(WORKFLOW.read_bytes())["jobs"]
    commands = {
        name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()
    }
    assert commands == {"gate": [".ci/run"], "containers": ["make test"]}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert jobs["containers"]["env"] == {"OPENBAT_TEST_STACK": CONTAINERS}
    assert {line.split()[1] for line in gate() if line.startswith("make ")} <= targets()


def test_every_hook_is_a_tool_that_the_check_runs() -> None:
    (local,) = msgspec.yaml.decode(HOOKS.read_bytes())["repos"]
    assert local["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text()
    for hook in local["hooks"]:
        words = shlex.split(hook["entry"])
        command = " ".join(word for word in words if not word.startswith("-"))
        assert hook["language"] == "system"
        assert re.search(rf"^\t{re.escape(command)}( --check)?$", makefile, re.MULTILINE), command


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_a_document_names_what_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (ROOT / link).exists(), link
    made = set(re.findall(r"`(?:\w+=\w+ )*make (\w+)`", text))
    assert made
    assert made <= targets()
    for path in re.findall(r"`((?:tests|docs|\.ci)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def locked() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        found.setdefault(package["name"], []).append(package)
    return found


def needed(packages: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Return all that the project and its extras need to run, on any platform."""
    extras = packages[PROJECT][0]["optional-dependencies"]
    todo = [(PROJECT, ""), *((PROJECT, extra) for extra in extras)]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra = wanted = todo.pop()
        if wanted not in seen:
            seen.add(wanted)
            todo += needs(packages[name], extra)
    return {name for name, _ in seen} - {PROJECT}


def needs(versions: list[dict[str, Any]], extra: str) -> Iterator[tuple[str, str]]:
    for package in versions:
        listed = (
            package.get("optional-dependencies", {}).get(extra, [])
            if extra
            else package.get("dependencies", [])
        )
        for each in listed:
            yield each["name"], ""
            yield from ((each["name"], asked) for asked in each.get("extra", []))


def noticed(path: Path) -> set[str]:
    """Return the packages that a NOTICE lists, each with its licence beside it."""
    rows = re.findall(r"^  ([a-z0-9-]+)  +\S", path.read_text(), re.MULTILINE)
    return set(rows)


def test_the_notice_names_every_package_that_the_project_needs_and_no_other() -> None:
    assert noticed(ROOT / "NOTICE") == needed(locked())


def test_the_lock_holds_every_dependency_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {Requirement(each).name for group in listed for each in group}
    assert names
    assert names <= noticed(ROOT / "NOTICE")
