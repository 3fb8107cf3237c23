"""The commands of docs/operations.md for a local stack, as they stand there."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbat import __version__
from openbat.status.seen import STABLE
from schemas import topics
from tests.stack import ROOT, START_SECONDS, Stack, free_port, local_stack, process, wait_until

_MARKED = re.compile(
    r"<!-- ([\w-]+): run by tests/integration/test_operations\.py -->\n```\n(.*?)```", re.DOTALL
)
COMMANDS = dict(_MARKED.findall((ROOT / "docs" / "operations.md").read_text()))
METRICS_PORT = "9101"
BOOTSTRAP = "127.0.0.1:9092"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where commands are run: a clone's directory, as far as they need it."""
    made = tmp_path_factory.mktemp("clone")
    (made / ".venv").symlink_to(sys.prefix)
    return made


@pytest.fixture(scope="module")
def stack(directory: Path) -> Iterator[Stack]:
    with local_stack(directory / ".openbat") as running:
        jars = directory / ".openbat" / "jars"
        if not jars.exists():
            jars.symlink_to(Path(running.environment["OPENBAT_JARS_DIR"]).absolute())
        yield running


def bare() -> dict[str, str]:
    """Return an environment that says nothing of where the stack is."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("OPENBAT_")
    }
    return {**environment, "PATH": f".venv/bin{os.pathsep}{os.environ['PATH']}"}


def members(stack: Stack) -> int:
    """Return how many conversations workers share the partitions; 0 while they are at it."""
    roles = json.loads(stack.openbat("status", "--json", check=False).stdout)["roles"] or []
    return sum(
        role["members"]
        for role in roles
        if role["role"] == "conversations" and role["state"] == STABLE
    )


def test_one_more_worker_is_started_by_hand(stack: Stack, directory: Path) -> None:
    command = COMMANDS["one-more"]
    assert METRICS_PORT in command
    port = free_port()
    command = command.replace(METRICS_PORT, str(port))
    assert members(stack) == 1
    log = directory / "one-more.log"
    with process(["/bin/bash", "-c", f"cd {directory}\n{command}"], bare(), log) as shell:
        try:
            wait_until(lambda: members(stack) == 2, START_SECONDS, "it is a member")
            # Where it has entries to recover it says later that it is ready.
            wait_until(lambda: '"ready"' in log.read_text(), START_SECONDS, "it is ready")
        finally:
            os.killpg(shell.pid, signal.SIGINT)  # as Ctrl-C does, to the shell and the worker
        wait_until(lambda: '"stopped"' in log.read_text(), 30, "it ends")
    ready = ready_line(log)
    assert (ready["version"], ready["metrics"]) == (__version__, f"127.0.0.1:{port}")


def ready_line(log: Path) -> dict[str, Any]:
    lines = map(json.loads, log.read_text().splitlines())
    return next(line for line in lines if line["event"] == "ready")


def test_a_gateway_says_where_it_serves(stack: Stack, directory: Path) -> None:
    (log,) = (directory / ".openbat" / "logs").glob("gateway*")
    ready = ready_line(log)
    (metrics_url,) = (
        each["metrics_url"] for each in stack.state["processes"] if each["role"] == "gateway"
    )
    assert f"http://{ready['address']}" == stack.gateway_url
    assert f"http://{ready['metrics']}/metrics" == metrics_url


def run(directory: Path, command: str) -> str:
    return subprocess.run(
        ["/bin/bash", "-e", "-o", "pipefail", "-c", command],
        cwd=directory, env=bare(), capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip


def test_lag_is_told_by_partition(stack: Stack, directory: Path) -> None:
    assert stack.state["processes"]
    expected = {
        f'{{partition="{partition}",topic="{topic}"}}'
        for topic in (topics.CAPTURES, topics.MESSAGES)
        for partition in range(8)
    }

    def told() -> set[str]:
        return set(
            re.findall(
                r"^openbat_lag_records(\{.*\}) ", run(directory, COMMANDS["lag"]), re.MULTILINE
            )
        )

    # The worker of the test before has left partitions behind, for as long as a session.
    wait_until(lambda: expected <= told(), 60, "lag by partition")


def test_kafkas_settings_are_shown_and_set_back(stack: Stack, directory: Path) -> None:
    shown = COMMANDS["configs"].replace(BOOTSTRAP, stack.connection.bootstrap)
    assert "retention.ms=604800000" in run(directory, shown)
    document = (ROOT / "docs" / "operations.md").read_text()
    set_to = re.findall(r"(--alter --entity-type topics [^`]*?retention\.ms=\d+)", document)
    assert len(set_to) == 2
    function = shown.splitlines()[0]
    tool = f"kafka_configs --bootstrap-server {stack.connection.bootstrap}"
    describe = f"{tool} --describe --entity-type topics --entity-name messages"
    for arguments in set_to:
        words = " ".join(arguments.replace("\\\n", " ").split())
        found = run(directory, f"{function}\n{tool} {words}\n{describe}")
        assert f"{words.rpartition(' ')[2]} " in found
