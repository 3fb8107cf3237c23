"""The README says what is so."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import typer
from click import Command, Group

from openbat import cli
from openbat.settings import PREFIX, Settings, described
from tests.stack import ROOT

README = ROOT / "README.md"
BEGIN = "<!-- settings: made from openbat/settings.py, checked by a test -->\n"
END = "<!-- /settings -->"


def settings_table() -> str:
    """Return the table that the README must hold."""
    descriptions = described()
    lines = ["| variable | default | |", "|---|---|---|"]
    for field in msgspec.structs.fields(Settings):
        default = field.default
        shown = (
            ""
            if default is None
            else f"`{default:g}`"
            if type(default) is float
            else f"`{default}`".lower()
            if type(default) is bool
            else f"`{default}`"
        )
        assert default is None or isinstance(default, str | int | float | Path)
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {shown} | {descriptions[field.name]} |")
    return "\n".join(lines) + "\n"


def test_every_setting_is_in_the_readme() -> None:
    readme = README.read_text()
    table = readme[readme.index(BEGIN) + len(BEGIN) : readme.index(END)]
    assert table == settings_table()


def commands_of(command: Command, words: tuple[str, ...] = ("openbat",)) -> Iterator[str]:
    """Yield a command's own commands, and theirs, as they are typed; the hidden ones are ours."""
    if not isinstance(command, Group):
        yield " ".join(words)
        return
    for name, inner in command.commands.items():
        if not inner.hidden:
            yield from commands_of(inner, (*words, name))


def test_every_command_is_in_the_readme() -> None:
    commands = README.read_text().partition("## Commands")[2].partition("## ")[0]
    for command in commands_of(typer.main.get_command(cli.app)):
        *_, last = command.split()
        assert f"`{command}" in commands or f"`{last} " in commands or f"`{last}`" in commands
