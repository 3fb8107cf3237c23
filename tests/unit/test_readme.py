"""The README says what is so."""

from pathlib import Path

import msgspec

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
            else f"`{default}`"
        )
        assert default is None or isinstance(default, str | int | float | Path)
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {shown} | {descriptions[field.name]} |")
    return "\n".join(lines) + "\n"


def test_every_setting_is_in_the_readme() -> None:
    readme = README.read_text()
    table = readme[readme.index(BEGIN) + len(BEGIN) : readme.index(END)]
    assert table == settings_table()
