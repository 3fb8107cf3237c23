"""ClickHouse's engine, for tests that need nothing else of the stack."""

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.test_clickhouse_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:
    from tests.integration.test_clickhouse_server import Server

    running = Server(tmp_path_factory.mktemp("clickhouse") / "data")
    yield running
    assert running.stop(signal.SIGTERM) == 0


@pytest.fixture
def database(server: "Server") -> Iterator[Any]:
    """Return a client of a server without our tables."""
    with server.client(autogenerate_session_id=False) as made:
        made.command("DROP DATABASE IF EXISTS openbat SYNC")
        yield made
