"""The registry's backup: what a file holds, what a restore writes, and what it leaves alone."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

import openbat.kafka
from gateway.registry import Registry
from openbat import chatbot_backup, chatbots_cli, cli
from openbat.chatbot_backup import Backup, backup_of, changes, generation_after, parse
from openbat.chatbots import ChatbotError, archived, with_key
from openbat.command import json_of
from openbat.connection import Connection
from schemas.chatbots import (
    DEMO,
    GENERATION_KEY,
    Chatbot,
    ChatbotSettings,
    Generation,
    generation_codec,
)
from schemas.codec import UndecodableError
from schemas.positions import MAX_GENERATION
from tests.unit.test_gateway import chatbot, entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OTHER_KEY = "secret of another"


def registry_of(*chatbots: Chatbot, generation: int = 0) -> Registry:
    registry = Registry()
    registry.apply(GENERATION_KEY, generation_codec.encode(Generation(generation)))
    for each in chatbots:
        registry.apply(*entry(each))
    return registry


def two() -> tuple[Chatbot, Chatbot]:
    return chatbot(1), chatbot(2, OTHER_KEY)


def test_a_file_holds_hashes_and_settings_and_is_read_again() -> None:
    backup = backup_of(registry_of(*two(), generation=4), NOW)
    content = json_of(backup)
    assert OTHER_KEY.encode() not in content
    assert parse(content) == backup == Backup(1, NOW, 4, list(two()))


def with_chatbot(**values: Any) -> bytes:
    return json_of(Backup(1, NOW, 0, [replace(chatbot(), **values)]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": 1}',
        b"\xff",
        json_of(Backup(2, NOW, 0, [])),
        json_of(Backup(1, NOW, MAX_GENERATION + 1, [])),
        with_chatbot(key_sha256=b"short"),
        with_chatbot(name=" "),
        with_chatbot(id="no uuid"),
        with_chatbot(id=chatbot().id.replace("-", "")),
        json_of(Backup(1, NOW, 0, [chatbot(), chatbot()])),
        json_of(Backup(1, NOW, 0, [chatbot(1), replace(chatbot(2), name="other")])),
    ],
)
def test_what_is_no_backup_is_refused(content: bytes) -> None:
    with pytest.raises(ChatbotError, match="expected a file that `openbat chatbots export` wrote"):
        parse(content)


def test_what_is_missing_is_written_and_what_is_there_is_left_alone() -> None:
    first, second = two()
    wanted, done = changes(registry_of(first), [first, second], overwrite=False)
    assert wanted == [second]
    assert (done.written, done.unchanged, done.refused) == (1, 1, [])


def test_what_was_changed_since_is_overwritten_only_if_told() -> None:
    before = chatbot()
    registry = registry_of(archived(with_key(before, OTHER_KEY)))
    wanted, done = changes(registry, [before], overwrite=False)
    assert (wanted, done.written) == ([], 0)
    assert "--overwrite" in done.refused[0]
    wanted, done = changes(registry, [before], overwrite=True)
    assert (wanted, done.written, done.refused) == ([before], 1, [])


def test_a_first_capture_is_kept_and_is_no_change() -> None:
    new, captured = chatbot(), replace(chatbot(), first_capture_at=NOW)
    backup = parse(json_of(backup_of(registry_of(captured), NOW)))
    assert backup.chatbots == [captured]
    assert changes(registry_of(), backup.chatbots, overwrite=False)[0] == [captured]
    for there, file in ((captured, new), (new, captured)):
        wanted, done = changes(registry_of(there), [file], overwrite=True)
        assert (wanted, done.unchanged, done.refused) == ([], 1, [])
    wanted, _ = changes(registry_of(archived(captured)), [new], overwrite=True)
    assert wanted == [captured]


def test_a_file_of_a_release_before_names_no_first_capture() -> None:
    content = msgspec.json.decode(json_of(Backup(1, NOW, 0, [chatbot()])))
    del content["chatbots"][0]["first_capture_at"]
    assert parse(msgspec.json.encode(content)).chatbots == [chatbot()]


def test_what_a_newer_release_wrote_is_neither_left_out_nor_undone() -> None:
    registry = registry_of(chatbot())
    with pytest.raises(UndecodableError):
        registry.apply(UUID(chatbot().id).bytes, b"\xff")
    with pytest.raises(ChatbotError, match="1 chatbots can't be read by this release"):
        backup_of(registry, NOW)
    wanted, done = changes(registry, [chatbot()], overwrite=False)
    assert (wanted, len(done.refused)) == ([], 1)
    wanted, done = changes(registry, [chatbot()], overwrite=True)
    assert (wanted, done.refused) == ([chatbot()], [])


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_another_chatbot_has_is_never_taken_away(overwrite: bool) -> None:
    other = replace(chatbot(3, OTHER_KEY), name=chatbot(1).name)
    wanted, done = changes(registry_of(other), list(two()), overwrite)
    assert wanted == []
    assert "has this name" in done.refused[0]
    assert "has its key" in done.refused[1]


def demos() -> tuple[Chatbot, Chatbot]:
    """Return the `demo` of a file, and the one that a new local stack has made."""
    return replace(chatbot(1), name=DEMO), replace(chatbot(2, OTHER_KEY), name=DEMO)


def test_a_demo_that_nobody_used_is_replaced_if_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs, made = demos()
    commands = Commands(monkeypatch, registry_of(theirs, chatbot(3, "secret of a third")))
    file = tmp_path / "chatbots.json"
    commands.run("export", str(file))
    wanted = commands.registry.chatbots()
    commands.registry = registry_of(made)
    done = commands.run("restore", str(file))
    assert (done.exit_code, done.stdout) == (1, "written=1 unchanged=0 refused=1\n")
    assert "--overwrite replaces it" in done.stderr
    commands.registry = registry_of(made)
    done = commands.run("restore", str(file), "--overwrite")
    assert (done.exit_code, done.stdout) == (0, "written=2 unchanged=0 refused=0\n")
    assert commands.registry.chatbots() == wanted
    assert commands.registry.chatbot_of(made.key_sha256) is None
    generation, removed, *_ = commands.edits[-1]
    assert (generation[0], removed) == (GENERATION_KEY, (UUID(made.id).bytes, None))


@pytest.mark.parametrize(
    "used",
    [
        {"first_capture_at": NOW},
        {"state": "archived"},
        {"schema": {"plan": "string"}},
        {"settings": ChatbotSettings(rate_limit="off")},
    ],
)
def test_a_demo_that_was_used_keeps_its_name(used: dict[str, Any]) -> None:
    theirs, made = demos()
    wanted, done = changes(registry_of(replace(made, **used)), [theirs], overwrite=True)
    assert wanted == []
    assert "give this one another name in the file" in done.refused[0]


def test_captures_of_a_new_registry_come_after_all_that_were() -> None:
    backup = Backup(1, NOW, 4, list(two()))
    assert generation_after(registry_of(generation=1), backup) == 5
    assert generation_after(registry_of(chatbot(9), generation=6), backup) == 7
    # Gateways may run on this one, and would not learn it all at once.
    assert generation_after(registry_of(chatbot(1), generation=4), backup) == 4
    with pytest.raises(ChatbotError, match="no position is left"):
        generation_after(registry_of(), Backup(1, NOW, MAX_GENERATION, list(two())))


class Commands:
    """`openbat chatbots`, over a registry in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
        self.registry = registry
        self.edits: list[Any] = []

        async def edit(_: Connection, change: Any) -> None:
            self.edits.append(change(self.registry))
            for key, value in self.edits[-1]:
                self.registry.apply(key, value)

        async def read(_: Connection) -> Registry:
            return self.registry

        async def partitions(_: Connection) -> int:
            return 8

        monkeypatch.setattr(chatbots_cli, "connection", lambda: Connection("nowhere"))
        monkeypatch.setattr(chatbot_backup, "edit_registry", edit)
        monkeypatch.setattr(openbat.kafka, "read_registry", read)
        monkeypatch.setattr(openbat.kafka, "captures_partitions", partitions)

    def run(self, *arguments: str, stdin: bytes | None = None) -> Result:
        try:
            return CliRunner().invoke(cli.app, ["chatbots", *arguments], input=stdin)
        finally:
            logging.disable(logging.NOTSET)


def test_an_export_is_restored_into_a_new_registry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = Commands(monkeypatch, registry_of(*two(), generation=2))
    file = tmp_path / "chatbots.json"
    assert commands.run("export", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert parse(commands.run("export").stdout_bytes).chatbots == list(two())

    commands.registry = registry_of(generation=1)
    monkeypatch.setattr(chatbot_backup, "CHUNK_CHATBOTS", 1)
    assert commands.run("restore", str(file)).stdout == "written=2 unchanged=0 refused=0\n"
    assert commands.registry.chatbots() == list(two())
    assert commands.registry.generation == 3
    again = commands.run("restore", "-", "--json", stdin=file.read_bytes())
    assert msgspec.json.decode(again.stdout) == {"written": 0, "unchanged": 2, "refused": []}
    assert commands.registry.generation == 3


def test_what_was_refused_is_said_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = Commands(monkeypatch, registry_of(*two()))
    file = tmp_path / "chatbots.json"
    commands.run("export", str(file))
    commands.registry = registry_of(archived(chatbot()))
    done = commands.run("restore", str(file))
    assert (done.exit_code, done.stdout) == (1, "written=1 unchanged=0 refused=1\n")
    assert done.stderr.startswith("chatbot 1: it was changed since")
    assert commands.run("restore", str(file), "--overwrite").exit_code == 0
    assert commands.registry.chatbots() == list(two())


@pytest.mark.parametrize("command", ["export", "restore"])
def test_a_file_that_can_not_be_used_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    commands = Commands(monkeypatch, registry_of())
    done = commands.run(command, str(tmp_path / "nowhere" / "chatbots.json"))
    assert isinstance(done.exception, ChatbotError)
    assert "No such file or directory; name another" in str(done.exception)
