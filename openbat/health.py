"""What a process says of itself over HTTP, from threads of its own: metrics, and its health."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app

from openbat.settings import SettingsError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

METRICS = "/metrics"
ALIVE = "/healthz"
READY = "/readyz"

MAX_REQUESTS = 16
"""Answered at once; more are closed. A scrape and the probes are three."""
REQUEST_SECONDS = 10.0
"""How long a client may take to send its request and to read the answer."""

LOOK_SECONDS = 5.0
"""How long a process may take to look at itself: half of what Prometheus waits for a scrape."""
STUCK = f"The event loop did not turn within {LOOK_SECONDS:g} s."

Check = Callable[[], Sequence[str]]
"""Returns what is wrong, in sentences; nothing where all is well. May block for some seconds."""

_encode = msgspec.json.Encoder().encode


def make_app(registry: CollectorRegistry, checks: Mapping[str, Check]) -> "WSGIApplication":
    """Return the WSGI app.

    A check is answered with 200 and `{"ok":true}`, or with 503 and `{"ok":false,"reasons":[...]}`.

    Args:
        registry: what METRICS shows.
        checks: by their paths.

    """
    metrics = make_wsgi_app(registry)

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == METRICS:
            shown: Iterable[bytes] = metrics(environ, start_response)
            return shown
        if path not in checks:
            start_response("404 Not Found", [])
            return []
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return []
        reasons = checks[path]()
        start_response(
            "503 Service Unavailable" if reasons else "200 OK",
            [("Content-Type", "application/json")],
        )
        return [_encode({"ok": False, "reasons": reasons} if reasons else {"ok": True})]

    return app


def stuck(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return that an event loop does not turn, from another thread; nothing where it does."""
    turned = threading.Event()
    loop.call_soon_threadsafe(turned.set)
    return [] if turned.wait(LOOK_SECONDS) else [STUCK]


def address_of(host: str, port: int) -> str | None:
    """Return `host:port`, None where port 0 says that nothing is served."""
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if port else None


def serve(
    registry: CollectorRegistry, host: str, port: int, checks: Mapping[str, Check] | None = None
) -> WSGIServer:
    """Serve metrics and checks, until the server is shut down.

    Raises:
        SettingsError: host or port can't be used.

    """
    try:
        server = _Server(host, port)
    except OSError as error:
        raise SettingsError(
            f"OPENBAT_METRICS_PORT: {host}:{port}: {error.strerror}; each process on a machine "
            "needs one of its own, at an address that OPENBAT_METRICS_HOST names"
        ) from None
    server.set_app(make_app(registry, checks or {}))
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log no request."""


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request, but only so many."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._room = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not the parent's: it looks the host's name up, which may take as long as DNS does.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # A time-out of the socket's would begin anew with each byte.
        end = threading.Timer(REQUEST_SECONDS, _close, (request,))
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""
