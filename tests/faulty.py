"""A gateway that fails as it is told to, for clients that are to send again, or not to."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """How one request is answered; status 0 hangs up without a word, after a while or at once."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]
    after_seconds: float = 0.0


class Request(NamedTuple):
    """What came, and when, in seconds of a clock that only goes on."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class FaultyGateway:
    """Answers requests in the order that they come; the last answer is given from then on."""

    def __init__(self, url: str, answers: list[Answer]) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._answers = answers
        self._lock = threading.Lock()

    def take(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            return self._answers[min(len(self.requests), len(self._answers)) - 1]


@contextlib.contextmanager
def faulty_gateway(*answers: Answer) -> Iterator[FaultyGateway]:
    """Serve on a free port of 127.0.0.1 until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # /healthz: it fails captures alone
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = gateway.take(Request(self.path, headers, body, time.monotonic()))
            time.sleep(answer.after_seconds)
            self.close_connection = True
            if answer.status == 0:
                return
            content = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client need not wait for it
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gateway = FaultyGateway(f"http://127.0.0.1:{server.server_port}", list(answers))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield gateway
        finally:
            server.shutdown()
            thread.join()
