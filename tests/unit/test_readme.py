"""The README says what is so."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from typer.core import TyperGroup
from typer.main import get_group

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


def commands_of(group: TyperGroup, words: tuple[str, ...] = ("openbat",)) -> Iterator[str]:
    """Yield a group's commands, and those of its groups, as they are typed; none that is hidden."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands_of(command, (*words, name))
        elif not command.hidden:
            yield " ".join((*words, name))


def test_every_command_is_in_the_readme() -> None:
    """The first of a row is written out, those after it may be the last word alone."""
    rows = README.read_text().partition("## Commands")[2].partition("## ")[0].splitlines()
    told = [row.split("|")[1] for row in rows if row.startswith("| `")]
    found = list(commands_of(get_group(cli.app)))
    assert "openbat worker analysis" in found
    for command in found:
        group, _, last = command.rpartition(" ")
        assert any(
            f"`{command}`" in row
            or f"`{command} " in row
            or (f"`{group} " in row and (f"`{last}`" in row or f"`{last} " in row))
            for row in told
        ), command
