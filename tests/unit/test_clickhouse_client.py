"""Why ClickHouse can't be reached is told in plain words, not in those of the HTTP client."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from openbat.clickhouse import ClickHouseUnreachableError, clickhouse_client
from openbat.errors import sentence_of


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the URL of a server that deals so with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(TimeoutError):
                        connection.settimeout(2)  # the client keeps what it gave up open
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def closing(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.shutdown(socket.SHUT_WR)
    silent(connection)  # what is closed with bytes unread is reset instead


def no_http(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"220 another protocol\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (silent, "it does not answer in time: it hangs, or has too much to do"),
        (closing, "it closes connections without an answer"),
        (no_http, "what answers there does not speak HTTP"),
    ],
)
def test_what_the_client_says_of_its_own_parts_is_not_shown(
    answer: Callable[[socket.socket], None], said: str
) -> None:
    with answering(answer) as url:
        with pytest.raises(ClickHouseUnreachableError) as unreachable:
            clickhouse_client(url, send_receive_timeout=1)
        assert str(unreachable.value) == (
            f"ClickHouse can't be used at {url}: {said}; check OPENBAT_CLICKHOUSE_URL"
        )
    # The same, where it answered before and no longer does.
    error = unreachable.value.__cause__
    assert isinstance(error, ClickHouseError)
    assert sentence_of(error) == (
        f"ClickHouse does not answer: {said}; look at it, and at OPENBAT_CLICKHOUSE_URL"
    )


def test_what_the_system_says_is_kept() -> None:
    with pytest.raises(ClickHouseUnreachableError, match="Connection refused; check OPENBAT_CLI"):
        clickhouse_client("http://127.0.0.1:1")
