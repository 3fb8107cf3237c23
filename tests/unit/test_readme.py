"""The README says what is so."""

import typing
from pathlib import Path

import msgspec

from openbat.settings import PREFIX, Settings
from tests.stack import ROOT

README = ROOT / "README.md"
BEGIN = "<!-- settings: made from openbat/settings.py, checked by a test -->\n"
END = "<!-- /settings -->"


def settings_table() -> str:
    """Return the table that the README must hold."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    lines = ["| variable | default | |", "|---|---|---|"]
    for field in msgspec.structs.fields(Settings):
        metas = [meta for meta in hints[field.name].__metadata__ if isinstance(meta, msgspec.Meta)]
        (description,) = (meta.description for meta in metas if meta.description)
        default = field.default
        shown = (
            ""
            if default is None
            else f"`{default:g}`"
            if type(default) is float
            else f"`{default}`"
        )
        assert default is None or isinstance(default, str | int | float | Path)
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {shown} | {description} |")
    return "\n".join(lines) + "\n"


def test_every_setting_is_in_the_readme() -> None:
    readme = README.read_text()
    table = readme[readme.index(BEGIN) + len(BEGIN) : readme.index(END)]
    assert table == settings_table()
