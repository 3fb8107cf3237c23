"""The two releases that an upgrade is between: the one before, from its archive, and this one.

Both run on this environment's interpreter and libraries.
"""

import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from openbat import __version__
from tests.stack import ROOT
from tests.upgrade import formats

PREVIOUS = "0.1.0"
PACKAGES = ("gateway", "openbat", "schemas", "sinks", "streams")
ARCHIVE = Path(__file__).parent / f"release-{PREVIOUS}.tar.gz"

# -P: the current directory is this release's, and would come before PYTHONPATH.
PYTHON = [sys.executable, "-P"]


class Release(NamedTuple):
    """A release's code: its packages are folders of `root`."""

    name: str
    root: Path

    def environment(self, others: Mapping[str, str]) -> dict[str, str]:
        """Return the environment in which PYTHON imports this release."""
        return {**others, "PYTHONPATH": str(self.root)}

    def command(self, *arguments: str) -> list[str]:
        return [*PYTHON, "-m", "openbat", *arguments]

    def openbat(self, environment: Mapping[str, str], *arguments: str) -> str:
        """Run an `openbat` command of this release to its end; return what it printed."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def rewritten(self, values: list[tuple[str, bytes]]) -> list[bytes]:
        """Return what this release writes for values that it reads, each given with its kind."""
        done = subprocess.run(
            [*PYTHON, str(formats.__file__)],
            env=self.environment(os.environ),
            input=msgspec.msgpack.encode(values),
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"release {self.name}: {done.stderr.decode()[-3000:]}")
        return msgspec.msgpack.decode(done.stdout, type=list[bytes])


CURRENT = Release(__version__, ROOT)


def unpack(directory: Path) -> Release:
    """Return the previous release, unpacked."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return Release(PREVIOUS, directory)
