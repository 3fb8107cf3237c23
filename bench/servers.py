"""Servers that the gateway is compared with, each a process on a port of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.run import BenchError
from tests.stack import ROOT, free_port, process

PEERS = ROOT / "bench" / "peers"
PEERS_PYTHON = PEERS / ".venv" / "bin" / "python"
FASTAPI_TOPIC = "peer-captures"
START_SECONDS = 30.0


class Server(NamedTuple):
    """A running server."""

    url: str
    pid: int


@contextlib.contextmanager
def server(command: list[str], directory: Path, **environment: str) -> Iterator[Server]:
    """Run a server; it takes connections when this yields.

    Args:
        command: of it; it finds its port in PORT.
        directory: for its log.
        environment: further variables.

    """
    port = free_port()
    log = directory / f"server-{port}.log"
    settings = {**os.environ, "PORT": str(port), "PYTHONPATH": str(ROOT), **environment}
    with process(command, settings, log) as running:
        end = time.monotonic() + START_SECONDS
        while not _listens(port):
            if running.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{command} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}/api/v1/capture", running.pid)


def validating(directory: Path, key: str) -> contextlib.AbstractContextManager[Server]:
    return server([sys.executable, "-m", "bench.validating"], directory, KEY=key)


def constant(directory: Path) -> contextlib.AbstractContextManager[Server]:
    return server([str(PEERS_PYTHON), str(PEERS / "constant.py")], directory)


def fastapi(directory: Path, key: str, bootstrap: str) -> contextlib.AbstractContextManager[Server]:
    return server(
        [str(PEERS_PYTHON), str(PEERS / "fastapi_kafka.py")],
        directory,
        KEY=key,
        BOOTSTRAP=bootstrap,
    )


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def peer_versions() -> dict[str, str]:
    """Return the versions of the libraries that the peers are made of."""
    names = ("aiokafka", "confluent-kafka", "fastapi", "pydantic", "quixstreams", "starlette")
    code = (
        "import sys; from importlib.metadata import version; "
        "print(*(f'{name}={version(name)}' for name in sys.argv[1:]))"
    )
    done = subprocess.run(
        [str(PEERS_PYTHON), "-c", code, *names], capture_output=True, text=True, check=True
    )
    return dict(found.split("=") for found in done.stdout.split())
