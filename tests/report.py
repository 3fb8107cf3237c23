"""What the long runs find out: figures with their bounds, written to docs/reports."""

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct, field

from openbat import __version__
from tests.stack import ROOT

REPORTS = ROOT / "docs" / "reports"


class Figure(Struct):
    """One thing that was counted or measured, and what it must be; `bound` empty for none."""

    what: str
    value: float | int | str
    unit: str = ""
    bound: str = ""
    holds: bool = True


class Report(Struct, dict=True):
    """A run's figures, in the order in which they were found."""

    name: str
    command: str
    version: str = __version__
    machine: str = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    python: str = platform.python_version()
    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    seconds: int = 0
    figures: list[Figure] = []

    def __post_init__(self) -> None:
        self._started = time.monotonic()

    def add(
        self,
        what: str,
        value: float | str,
        unit: str = "",
        *,
        bound: str = "",
        holds: bool = True,
    ) -> None:
        """Add a figure; `holds` says whether it is within its bound."""
        self.figures.append(Figure(what, value, unit, bound, holds))

    def write(self, directory: Path = REPORTS) -> None:
        """Write NAME.json, and NAME.md for people."""
        self.seconds = round(time.monotonic() - self._started)
        directory.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.format(msgspec.json.encode(self), indent=2)
        (directory / f"{self.name}.json").write_bytes(content + b"\n")
        (directory / f"{self.name}.md").write_text(self.table())

    def table(self) -> str:
        """Return the report in Markdown."""
        lines = [
            f"# {self.name}",
            "",
            f"Made by `{self.command}` in {self.seconds} s on {self.at:%Y-%m-%d}.",
            f"openbat-capture {self.version}, Python {self.python}, {self.machine}.",
            "",
            "| what | found | must be | holds |",
            "|---|---|---|---|",
        ]
        for figure in self.figures:
            value = f"{figure.value:,.4g}" if type(figure.value) is float else f"{figure.value}"
            holds = ("yes" if figure.holds else "**no**") if figure.bound else ""
            found = f"{value} {figure.unit}".rstrip()
            lines.append(f"| {figure.what} | {found} | {figure.bound} | {holds} |")
        return "\n".join(lines) + "\n"
