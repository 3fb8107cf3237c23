"""What the gateway's process gives its connections."""

import resource
from collections.abc import Iterator

import pytest

from openbat.gateway_role import FILES_BESIDE_CONNECTIONS, connection_bounds
from openbat.open_files import ENOUGH, raise_limit
from openbat.settings import Settings


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
