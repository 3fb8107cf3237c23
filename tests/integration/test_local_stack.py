"""`openbat local`: what it writes, how it survives kills, how it stops and comes back."""

import gzip
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conversations import conversations, write_lines
from tests.stack import OPENBAT, STOP_SECONDS, Stack, local_stack, wait_until

ROLES = {"kafka", "clickhouse-server", "gateway", "conversations", "clickhouse"}
REPLACED_SECONDS = 2.0

COUNTS = (
    "SELECT count() AS rows, uniqExact(conversation_id, message_id) AS ids FROM openbat.messages"
)

pytestmark = pytest.mark.timeout(400)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def kill_one(stack: Stack, role: str) -> None:
    """Kill a process of a role; return when another one has taken its place."""
    before = stack.pids(role)
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: before[0] not in stack.pids(role), REPLACED_SECONDS, f"a new {role}")
    assert len(stack.pids(role)) == len(before)


def test_kills_and_restarts_lose_nothing(tmp_path: Path) -> None:
    """Import while every role is killed, count, stop, start again, count again, import again."""
    data_dir = tmp_path / "data"
    file = tmp_path / "conversations.jsonl"
    messages = write_lines(file, conversations(500))
    expected = [{"rows": messages, "ids": messages}]

    with local_stack(data_dir, OPENBAT_CONVERSATIONS_WORKERS="2") as stack:
        state_file = data_dir / "local.json"
        assert stat.S_IMODE(state_file.stat().st_mode) == 0o600
        assert stat.S_IMODE((data_dir / "demo.key").stat().st_mode) == 0o600
        assert {found["role"] for found in stack.state["processes"]} == ROLES
        names = {found["name"] for found in stack.state["processes"]}
        assert {"conversations-0", "conversations-1", "gateway-0"} < names
        assert {path.stem for path in (data_dir / "logs").glob("*.log")} == names
        assert all(alive(found["pid"]) for found in stack.state["processes"])
        assert (data_dir / "demo.key").read_text().strip() == stack.state["api_key"]

        with subprocess.Popen(
            [*OPENBAT, "import", "--turn-by-turn", str(file)],
            env=stack.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as importing:
            for role in ("conversations", "gateway", "clickhouse", "clickhouse-server", "kafka"):
                time.sleep(1.5)
                kill_one(stack, role)
            closing, _ = importing.communicate(timeout=150)
        totals = dict(pair.split("=") for pair in closing.split())
        assert totals["failed"] == "0"
        told = ("stored", "duplicates", "provisional")
        assert sum(int(totals[name]) for name in told) == messages
        assert stack.wait_sql(COUNTS, expected, seconds=60) == expected
        pids = [found["pid"] for found in stack.state["processes"]]
        key = stack.state["api_key"]
    assert not any(alive(pid) for pid in pids)
    assert not state_file.exists()

    with local_stack(data_dir) as stack:
        assert stack.state["api_key"] == key
        assert stack.sql(COUNTS) == expected
        again = stack.openbat("import", str(file)).stdout
        assert again.split() == [
            "captures=500", "stored=0", f"duplicates={messages}", "provisional=0", "failed=0",
        ]  # fmt: skip


def test_signals_to_the_group_stop_everything(tmp_path: Path) -> None:
    with local_stack(tmp_path / "data") as stack:
        pids = [found["pid"] for found in stack.state["processes"]]
        children = Path(f"/proc/{pids[0]}/stat").read_text().split()
        supervisor = int(children[3])
        assert stack.state["pid"] == supervisor
        started = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.killpg(supervisor, number)
            time.sleep(0.2)
        wait_until(lambda: not alive(supervisor), STOP_SECONDS, "the stop")
        assert time.monotonic() - started < STOP_SECONDS
        assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(
    "variable", ["OPENBAT_PORT", "OPENBAT_KAFKA_PORT", "OPENBAT_CLICKHOUSE_PORT"]
)
def test_a_port_in_use_is_an_error_that_names_the_variable(tmp_path: Path, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {
            "OPENBAT_PORT": "0", "OPENBAT_KAFKA_PORT": "0", "OPENBAT_CLICKHOUSE_PORT": "0",
            variable: str(taken.getsockname()[1]),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "openbat", "local"],
            env={**os.environ, "OPENBAT_DATA_DIR": str(tmp_path), **ports},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert variable in done.stderr
    assert "Traceback" not in done.stderr


def test_a_faulty_line_is_named_and_the_rest_goes_on(stack: Stack, tmp_path: Path) -> None:
    key = stack.make_chatbot("faulty-lines")
    file = tmp_path / "lines.jsonl"
    good = json.dumps(
        {"conversationId": "good", "messages": [{"role": "user", "content": "a"}] * 3}
    )
    bad = json.dumps({"conversationId": "bad", "messages": [{"role": "nobody", "content": "a"}]})
    file.write_text(f"{good}\nnot json\n{bad}\n\n{good}\n")
    done = stack.openbat("import", str(file), "--api-key", key, check=False)
    assert done.returncode == 1
    # The last line repeats the first: its messages have no ids, and are still not doubled.
    assert done.stdout.split() == [
        "captures=2", "stored=3", "duplicates=3", "provisional=0", "failed=2",
    ]  # fmt: skip
    assert "line 2: not JSON" in done.stderr
    assert "line 3:" in done.stderr
    assert "$.messages[0].role" in done.stderr


def test_a_file_that_breaks_off_is_told_in_a_sentence(stack: Stack, tmp_path: Path) -> None:
    key = stack.make_chatbot("broken-file")
    lines = tmp_path / "lines.jsonl"
    write_lines(lines, conversations(300))
    packed = tmp_path / "lines.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes())[:-2000])
    done = stack.openbat("import", str(packed), "--api-key", key, check=False)
    assert done.returncode == 1
    assert "can't be read further" in done.stderr
    assert "import the whole file" in done.stderr
    assert "Traceback" not in done.stderr
