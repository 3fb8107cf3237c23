"""`python -m bench.profile ROLE`: a flame graph of a role, the whole stack being at saturation."""

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from bench import wrk
from bench.__main__ import STACK
from bench.run import say
from bench.whole import ROLES
from tests.stack import ROOT, local_stack

SECONDS = 15
WARM_UP_SECONDS = 5
PY_SPY = str(Path(sys.executable).with_name("py-spy"))
OPTIONS = ("record", "--duration", str(SECONDS), "--rate", "200")
DIRECTORY = ROOT / ".openbat" / "profile"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile")
    parser.add_argument("role", choices=ROLES)
    role = parser.parse_args().role
    wrk.check()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    graph = DIRECTORY / f"{role}.svg"
    with (
        tempfile.TemporaryDirectory(prefix="openbat-bench-") as directory,
        local_stack(Path(directory) / "stack", **STACK) as stack,
    ):
        url, key = f"{stack.gateway_url}/api/v1/capture", stack.state["api_key"]
        bodies = wrk.write_bodies(Path(directory))
        wrk.post(url, key, bodies, "warm", WARM_UP_SECONDS)
        load = (url, key, bodies, "profile", SECONDS + 2)
        posting = threading.Thread(target=wrk.post, args=load)
        posting.start()
        (pid,) = stack.pids(role)
        subprocess.run([PY_SPY, *OPTIONS, "--pid", str(pid), "--output", str(graph)], check=True)
        posting.join()
    say(f"flame graph: {graph}")


if __name__ == "__main__":
    main()
