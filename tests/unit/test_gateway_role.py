"""What the gateway's process gives its connections, and how it ends."""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.health import STARTING, STOPPING
from openbat.gateway_role import FILES_BESIDE_CONNECTIONS, connection_bounds
from openbat.open_files import ENOUGH, raise_limit
from openbat.settings import Settings
from tests.stack import OPENBAT, free_port, process, wait_until

UNREADY_SECONDS = 60


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """Return how many files this process may have open; restored afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield soft, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_may_be_open_as_may_be(limits: tuple[int, int]) -> None:
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    raised = raise_limit()
    assert raised == (ENOUGH if hard == resource.RLIM_INFINITY else hard)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised, hard)
    assert raise_limit() == raised


def test_as_many_connections_are_taken_as_the_settings_and_the_files_allow(
    limits: tuple[int, int],
) -> None:
    files = raise_limit()
    bounds = connection_bounds(Settings(max_connections=10, body_timeout_seconds=3))
    assert (bounds.connections, bounds.timeout_seconds) == (10, 3)
    bounds = connection_bounds(Settings(max_connections=1_000_000))
    assert bounds.connections == min(1_000_000, files - FILES_BESIDE_CONNECTIONS)
    assert bounds.body_bytes > Settings().max_body_bytes


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_told_to_stop_once_more_it_serves_on_no_longer(
    again: signal.Signals, tmp_path: Path
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "OPENBAT_PORT": str(port),
        "OPENBAT_DATA_DIR": str(tmp_path),
        "OPENBAT_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "OPENBAT_UNREADY_SECONDS": str(UNREADY_SECONDS),
    }

    def reasons() -> list[str]:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
        except httpx.TransportError:
            return []
        found: list[str] = answer.json()["reasons"]
        return found

    with process([*OPENBAT, "gateway"], environment, tmp_path / "log") as gateway:
        wait_until(lambda: reasons() == [STARTING], 30, "it serves")
        os.kill(gateway.pid, signal.SIGTERM)
        wait_until(lambda: reasons() == [STOPPING], 10, "it is unready, and serves on")
        os.kill(gateway.pid, again)
        wait_until(lambda: gateway.poll() is not None, UNREADY_SECONDS / 2, "it ends")
        # As after a single signal: uvicorn raises the first one again when it is done.
        assert gateway.poll() == -signal.SIGTERM
