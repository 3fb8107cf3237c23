"""What a connection may take, and how what is over it is refused."""

from msgspec import Struct

from gateway.errors import RefusedError, bad_request, too_large, unavailable


class ConnectionBounds(Struct, frozen=True):
    """What a connection may take, and the refusal beyond each bound.

    Attributes:
        connections: in one gateway; one more is answered with 503.
        head_bytes: of a request's line and headers.
        headers: of a request. Each costs more than its bytes.
        pipelined: requests that are sent before the one before them is answered.
        body_bytes: of a request's body as it is sent, chunks' frames and trailers included.
        timeout_seconds: from the first byte of a head to its end; from there to the body's end,
            whether it is answered already or not; and for a client that reads nothing of its
            answer.

    """

    connections: int
    head_bytes: int
    headers: int
    pipelined: int
    body_bytes: int
    timeout_seconds: float

    def too_many_connections(self) -> RefusedError:
        return unavailable("too_many_connections", "Too many clients are connected: try again.")

    def head_too_large(self) -> RefusedError:
        return RefusedError(
            431, "headers_too_large", f"The headers are over {self.head_bytes} bytes."
        )

    def too_many_headers(self) -> RefusedError:
        return RefusedError(431, "headers_too_large", f"There are over {self.headers} headers.")

    def too_many_requests(self) -> RefusedError:
        return bad_request("too_many_requests", f"Over {self.pipelined} requests wait for answers.")

    def body_too_large(self) -> RefusedError:
        return too_large(self.body_bytes)

    def head_too_slow(self) -> RefusedError:
        return self._too_slow("head_too_slow", "headers")

    def body_too_slow(self) -> RefusedError:
        return self._too_slow("body_too_slow", "body")

    def _too_slow(self, code: str, what: str) -> RefusedError:
        seconds = f"{self.timeout_seconds:g}"
        return RefusedError(408, code, f"The {what} did not arrive within {seconds} s.")
