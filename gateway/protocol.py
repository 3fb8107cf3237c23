"""uvicorn's protocol, but for what it says of requests that are no HTTP, and how it ends."""

import sys
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import RefusedError

DRAIN_SECONDS = 1.0
"""For how long a connection that is idle when the server is told to stop takes one more request."""


class JsonHttpProtocol(HttpToolsProtocol):
    """One connection.

    uvicorn's parser refuses methods that it does not know, before any route is looked at: that is
    answered in the one shape of all errors. At its end uvicorn closes idle connections at once,
    though a client may be sending: here the client is told with its next answer.
    """

    _reasons: ClassVar[dict[int, bytes]] = {400: b"Bad Request", 405: b"Method Not Allowed"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._drains = False

    def shutdown(self) -> None:
        """Drain: the answer to come, of this request or the next, says `Connection: close`."""
        self._drains = True
        if self._is_idle():
            self.loop.call_later(DRAIN_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._drains and self.cycle is not None:
            self.cycle.keep_alive = False

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        if isinstance(sys.exc_info()[1], httptools.HttpParserInvalidMethodError):
            refused = RefusedError(
                405, "method_not_allowed", "The method is unknown.", headers={"Allow": "POST"}
            )
        else:
            refused = RefusedError(400, "invalid_http", msg)
        response = refused.response()
        lines = [b"HTTP/1.1 %d %s" % (refused.status, self._reasons[refused.status])]
        lines += [b"%s: %s" % header for header in response.raw_headers]
        self.transport.write(
            b"\r\n".join([*lines, b"connection: close", b"", bytes(response.body)])
        )
        self.transport.close()
