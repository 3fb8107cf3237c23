"""How long a run takes, and what it says meanwhile."""

import sys
import time
from typing import NamedTuple


class BenchError(Exception):
    """Raised when a benchmark can't be run, or measured something else than it should."""


class Run(NamedTuple):
    """Rounds of each comparison, and seconds of load in each."""

    rounds: int
    seconds: int
    captures: int
    ids: int
    """What the large table holds."""


FULL = Run(rounds=5, seconds=8, captures=30_000, ids=10_000_000)
SHORT = Run(rounds=3, seconds=3, captures=8_000, ids=1_000_000)


def say(what: str) -> None:
    """Show progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")
    sys.stderr.flush()
