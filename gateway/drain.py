"""How a connection ends when the server is told to stop.

uvicorn closes idle connections at once then, though a client may be sending: it can't know whether
its capture was taken. Here the client is told with its next answer.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DRAIN_SECONDS = 1.0
"""For how long a connection that is idle when the server is told to stop takes one more request."""


class DrainingHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but for its end."""

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
        # One that was refused meanwhile is no connection of the server's any more: it ends alone.
        if self._is_idle() and self in self.connections:
            self.transport.close()
