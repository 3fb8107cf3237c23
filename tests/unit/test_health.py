"""The small server of metrics and health, over real sockets."""

import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from openbat import health
from openbat.health import ALIVE, METRICS, READY, Check, serve
from openbat.settings import SettingsError


@contextlib.contextmanager
def serving(checks: Mapping[str, Check], host: str = "127.0.0.1") -> Iterator[httpx.Client]:
    registry = CollectorRegistry()
    Counter("seen", "Seen.", registry=registry).inc()
    server = serve(registry, host, 0, checks)
    shown = f"[{host}]" if ":" in host else host
    try:
        with httpx.Client(
            base_url=f"http://{shown}:{server.server_port}", trust_env=False, timeout=10
        ) as client:
            yield client
    finally:
        server.shutdown()
        server.server_close()


def test_a_check_is_answered_with_its_reasons() -> None:
    wrong: list[str] = []
    with serving({ALIVE: list, READY: lambda: wrong}) as client:
        assert client.get(ALIVE).json() == {"ok": True}
        assert client.get(READY).status_code == 200
        wrong += ["Kafka does not answer.", "So it is."]
        answer = client.get(READY)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
        assert answer.json() == {"ok": False, "reasons": wrong}
        assert client.get(ALIVE).status_code == 200
        assert client.post(ALIVE).status_code == 405


def test_metrics_are_at_their_path_and_nothing_is_elsewhere() -> None:
    with serving({}) as client:
        assert "seen_total 1.0" in client.get(METRICS).text
        for path in ("/", ALIVE, READY, f"{METRICS}/more"):
            assert client.get(path).status_code == 404


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_address_of_ipv6_is_taken() -> None:
    with serving({}, "::1") as client:
        assert client.get(METRICS).status_code == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_that_is_not_ours_is_an_error_that_names_the_settings(host: str) -> None:
    with pytest.raises(SettingsError, match=r"OPENBAT_METRICS_PORT.*OPENBAT_METRICS_HOST"):
        serve(CollectorRegistry(), host, 0)


def test_a_check_that_blocks_holds_nobody_else_up() -> None:
    goes_on = threading.Event()

    def blocks() -> list[str]:
        goes_on.wait(10)
        return []

    with (
        serving({READY: blocks, ALIVE: list}) as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        asked = pool.submit(httpx.get, client.base_url.join(READY), trust_env=False, timeout=10)
        assert client.get(ALIVE).status_code == 200
        assert not asked.done()
        goes_on.set()
        assert asked.result().status_code == 200


def test_only_so_many_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_REQUESTS", 2)
    with serving({ALIVE: list}) as client, contextlib.ExitStack() as exits:
        port = client.base_url.port or 0
        silent = [
            exits.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(3)
        ]
        assert silent[2].recv(1) == b""
        with pytest.raises(httpx.TransportError):
            client.get(ALIVE)
        silent[0].close()
        silent[1].close()
        for _ in range(100):
            with contextlib.suppress(httpx.TransportError):
                assert client.get(ALIVE).status_code == 200
                return
        raise AssertionError("nobody is answered any more")


def test_who_sends_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.05)
    with (
        serving({}) as client,
        socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=10) as silent,
    ):
        assert silent.recv(1) == b""


def drip(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"G")
        time.sleep(0.02)


def test_who_sends_a_byte_now_and_then_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.2)
    with (
        serving({}) as client,
        socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=10) as slow,
        pytest.raises(OSError, match=r"Broken pipe|reset"),
    ):
        drip(slow)
