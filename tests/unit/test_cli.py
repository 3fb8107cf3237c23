"""The command line: its help teaches, it completes, and an error is one sentence."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import faust.streams
import pytest
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from clickhouse_connect.driver.exceptions import DatabaseError
from typer.core import TyperGroup
from typer.main import get_group
from typer.testing import CliRunner

from openbat import __version__, cli, logs, worker_role
from openbat.chatbots import ChatbotError
from openbat.command import UnansweredError
from openbat.connection import Connection
from openbat.errors import sentence_of
from openbat.settings import PREFIX, Settings
from openbat.status.cli import NOT_WELL
from openbat.worker_role import MAX_SLOTS, slot
from tests.stack import OPENBAT, ROOT
from tests.unit.fakes import FakeProducer
from tests.unit.test_readme import commands_of

DOCUMENT = (ROOT / "docs" / "cli.md").read_text()
NOWHERE = {
    "OPENBAT_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "OPENBAT_CLICKHOUSE_URL": "http://127.0.0.1:1",
}


class Done(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def openbat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Return what runs a command in this process as a shell would, where nothing is there."""
    # Loggers keep where they write to, and here that is closed with the test.
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)

    def run(*arguments: str, **environment: str) -> Done:
        where = {**NOWHERE, "OPENBAT_DATA_DIR": str(tmp_path), **environment}
        for name, value in where.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["openbat", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return run


def test_help_leads_from_nothing_to_a_query() -> None:
    text = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "120"}).stdout
    steps = ["openbat local", "openbat import", "openbat status", "SELECT role, content"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert text.index(" Run ") < text.index(" Look and manage ") < text.index(" Data ")
    commands = set(commands_of(get_group(cli.app)))
    for named in re.findall(r"openbat (?:[a-z]+ )?[a-z]+", cli.EPILOG):
        assert any(command.startswith(named.partition(" NAME")[0]) for command in commands), named


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(cli.app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"openbat-capture {__version__}\n")


def test_help_waits_for_nothing_that_a_command_needs() -> None:
    heavy = {"aiokafka", "clickhouse_connect", "faust", "pyarrow", "starlette", "structlog"}
    code = "import sys, openbat.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert "openbat.cli" in loaded
    assert not heavy & loaded


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("openbat sta", "status"),
        ("openbat dead-letters li", "list"),
        ("openbat worker ana", "analysis"),
    ],
)
def test_the_shell_completes_commands(tmp_path: Path, typed: str, completed: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("openbat")],
        env={
            **os.environ,
            "_OPENBAT_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [completed]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chatbots", "list"), "check OPENBAT_KAFKA_BOOTSTRAP"),
        (("dead-letters", "list", "--json"), "check OPENBAT_KAFKA_BOOTSTRAP"),
        (("migrate",), "check OPENBAT_KAFKA_BOOTSTRAP"),
        (("import", "nothing.jsonl"), "start one with `openbat local`"),
        (("chatbots", "restore", "/nowhere"), "can't be read: No such file or directory"),
        (("reanalyze", "--chatbot", "a", "--since", "soon"), "expected a date"),
    ],
)
def test_an_error_is_one_sentence_that_says_what_to_do(
    openbat: Run, arguments: tuple[str, ...], said: str
) -> None:
    done = openbat(*arguments)
    assert (done.status, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("openbat: ")
    assert said in line


def test_a_directory_that_can_not_be_written_is_named(openbat: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = openbat("local", OPENBAT_DATA_DIR=str(file))
    assert done.status == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"openbat: {file}")
    assert "OPENBAT_DATA_DIR" in line


@pytest.mark.parametrize("role", ["conversations", "clickhouse"])
def test_a_worker_that_finds_no_slot_says_what_to_do(
    openbat: Run, tmp_path: Path, role: str
) -> None:
    with contextlib.ExitStack() as taken:
        for _ in range(MAX_SLOTS):
            taken.enter_context(slot(tmp_path, role))
        done = openbat("worker", role)
    assert (done.status, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("openbat: OPENBAT_DATA_DIR: ")
    assert "stop some of them" in line


def test_a_worker_whose_faust_is_installed_wrongly_says_what_to_do(
    openbat: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def partitions(_: Connection) -> int:
        return 8

    async def producer(*_: object) -> FakeProducer:
        return FakeProducer()

    monkeypatch.setattr(worker_role, "captures_partitions", partitions)
    monkeypatch.setattr(worker_role, "start_producer", producer)
    monkeypatch.setattr(faust.streams, "_CStreamIterator", None)
    done = openbat("worker", "conversations")
    assert done.status == 1
    (line,) = done.stderr.splitlines()
    assert "install it from a wheel" in line


def test_a_wrong_setting_and_a_wrong_word_are_told_apart(openbat: Run) -> None:
    setting = openbat("status", OPENBAT_PORT="many")
    assert (setting.status, setting.stderr[:22]) == (1, "openbat: OPENBAT_PORT:")
    word = openbat("statsu", OPENBAT_PORT="0")
    assert word.status == 2
    assert "Did you mean 'status'?" in word.stderr


def refused(code: int) -> Any:
    """Return ClickHouse's error of a code."""
    error = DatabaseError("Code: it is so.\nAnd a stack trace.")
    error.code = code
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ChatbotError("as it is"), "as it is"),
        (UnansweredError("say --yes"), "say --yes"),
        (UnknownTopicOrPartitionError(), "run `openbat migrate`"),
        (TopicAuthorizationFailedError("captures"), "OPENBAT_KAFKA_USERNAME"),
        (KafkaTimeoutError(), "KafkaTimeoutError"),
        (CorruptRecordException(), "run the command again"),
        (KafkaError(), "KafkaError"),
        (refused(60), "run `openbat migrate`"),
        (refused(497), "openbat_reader"),
        (refused(241), "Code: it is so."),
    ],
)
def test_what_a_person_can_mend_is_a_sentence(error: Exception, said: str) -> None:
    sentence = sentence_of(error)
    assert sentence is not None
    assert said in sentence
    assert "\n" not in sentence


def test_a_bug_is_none_of_them() -> None:
    assert sentence_of(ValueError("a bug")) is None
    assert sentence_of(TimeoutError()) is None


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_goes_on_until_it_is_interrupted(tmp_path: Path, terminal: bool) -> None:
    reader, writer = pty.openpty() if terminal else os.pipe()
    with (
        subprocess.Popen(
            [*OPENBAT, "status", "--watch", "--every", "0.5"],
            env={**os.environ, **NOWHERE, "OPENBAT_DATA_DIR": str(tmp_path), "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
        ) as watching,
        os.fdopen(reader, "rb", buffering=0) as output,
    ):
        os.close(writer)
        seen = b""
        while seen.count(b"check OPENBAT_KAFKA_BOOTSTRAP") < 2:
            read = output.read(65536)
            assert read, seen
            seen += read
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
        assert watching.stderr is not None
        assert watching.stderr.read() == b""


def options_of(group: TyperGroup, words: str = "") -> dict[str, set[str]]:
    """Return each command's options."""
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found |= options_of(command, f"{words}{name} ")
        else:
            found[words + name] = {flag for each in command.params for flag in each.opts}
    return found


def test_the_document_lists_what_takes_json_and_no_other_command() -> None:
    section = DOCUMENT.partition("## JSON")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([a-z -]+)` \|", section, re.MULTILINE)
    found = [name for name, flags in options_of(get_group(cli.app)).items() if "--json" in flags]
    assert sorted(told) == sorted(found)


def test_the_document_names_what_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)", DOCUMENT):
        assert (ROOT / "docs" / link).exists(), link
    known = {PREFIX + name.upper() for name in Settings.__struct_fields__}
    named = set(re.findall(r"OPENBAT_[A-Z_]+", DOCUMENT))
    assert named
    assert named <= known
    assert f"| {NOT_WELL} | `openbat status` alone" in DOCUMENT


def test_the_document_lists_what_asks_first_and_no_other_command() -> None:
    section = DOCUMENT.partition("## What asks first")[2].partition("\n## ")[0]
    told = re.findall(r"`([a-z]+[a-z -]+)`", section)
    found = [name for name, flags in options_of(get_group(cli.app)).items() if "--yes" in flags]
    assert sorted(told) == sorted(found)
