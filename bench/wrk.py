"""Load at saturation: wrk, which posts captures as fast as they are answered."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from bench import data
from bench.run import BenchError

CONNECTIONS = 512
"""As many as saturate the stack: 256 leave a seventh of its rate, twice as many add a twentieth."""
SCRIPT = Path(__file__).parent / "captures.lua"


class Answers(NamedTuple):
    """What wrk counted."""

    requests: int
    seconds: float
    refused: int
    provisional: int
    broken: int


def check() -> str:
    """Return where wrk is. Raises BenchError where it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        raise BenchError("wrk is not there: install it, such as with `apt install wrk`")
    return found


def write_bodies(directory: Path) -> Path:
    """Write the bodies as wrk's script reads them."""
    path = directory / "bodies.jsonl"
    path.write_text("".join(f"{body}\n" for body in data.bodies()))
    return path


def post(
    url: str, key: str, bodies: Path, run: str, seconds: int, connections: int = CONNECTIONS
) -> Answers:
    """Post for some seconds.

    Raises:
        BenchError: an answer was no 200, or a connection broke.

    """
    done = subprocess.run(
        [
            check(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
            "-s", str(SCRIPT), "-H", f"Authorization: Bearer {key}",
            "-H", "Content-Type: application/json", url, "--", str(bodies), data.RUN, run,
        ],
        capture_output=True, text=True, check=True, timeout=seconds + 60,
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    requests, microseconds, refused, provisional, broken = line.split()[1:]
    answers = Answers(
        int(requests), int(microseconds) / 1e6, int(refused), int(provisional), int(broken),
    )  # fmt: skip
    if answers.refused or answers.broken or not answers.requests:
        raise BenchError(f"{url}: {answers}")
    return answers
