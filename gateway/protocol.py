"""A connection, bounded in time and bytes, and refusals that no route gives.

uvicorn waits for ever for a request's head to end, for the rest of a body that it has answered
already, and for a client that reads no answer; and a head may have any size. What it says itself is
plain text. Here each is bounded, and refused in the one shape of all errors.
"""

import asyncio
import sys
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.connection_bounds import ConnectionBounds
from gateway.drain import DrainingHttpProtocol
from gateway.errors import RefusedError
from gateway.request_id import CURRENT, HEADER, SCOPE, forget_trace, request_id_of

LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
"""How long a refused client may take to read why, and how much of what it still sends is taken.
Closed at once, it would be reset before."""


class BoundedHttpProtocol(DrainingHttpProtocol):
    """uvicorn's protocol within bounds, until it is drained; see `make_protocol`."""

    bounds: ConnectionBounds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_body = False
        self._between_requests = self._message_ended = True
        self._received_bytes = 0
        """Of the head or of the body, whichever is being read."""
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._deferred: RefusedError | None = None
        self._refused = False
        self._request_id: bytes | None = None
        """Of the request whose body is being read, from the end of its head on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            self._refuse(self.bounds.too_many_connections())
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_deadline()
        self._stop_watching_the_reader()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._received_bytes += len(data)
            if self._received_bytes > LINGER_BYTES:
                self.flow.pause_reading()
            return
        if self._deferred is not None:
            return
        self._between_requests = self._message_ended = False
        super().data_received(data)
        if self._refused or self._deferred is not None or self._between_requests:
            return
        if not self._message_ended:  # else an unknown part of the data is the next one's
            self._received_bytes += len(data)
        if self._in_body and self._received_bytes > self.bounds.body_bytes:
            self._refuse(self.bounds.body_too_large())
        elif not self._in_body and self._received_bytes > self.bounds.head_bytes:
            self._refuse(self.bounds.head_too_large())
        else:
            self._start_deadline()

    def on_message_begin(self) -> None:
        self._between_requests = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # it is a trailer, and must not pass for a header
        if len(self.headers) == self.bounds.headers:
            raise self.bounds.too_many_headers()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        size, sent = len(self.url), None
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == HEADER:
                sent = value
        self._request_id = request_id = request_id_of(sent)
        if size > self.bounds.head_bytes:
            raise self.bounds.head_too_large()
        if len(self.pipeline) == self.bounds.pipelined:
            raise self.bounds.too_many_requests()
        self.scope[SCOPE] = request_id  # type: ignore[literal-required]
        super().on_headers_complete()
        self.cycle.default_headers = [*self.cycle.default_headers, (HEADER, request_id)]
        self._stop_deadline()
        self._in_body = True
        self._received_bytes = 0

    def on_message_complete(self) -> None:
        self._stop_deadline()
        self._in_body = False
        self._request_id = None
        self._received_bytes = 0
        self._between_requests = self._message_ended = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._deferred is not None:
            self._refuse(self._deferred)
        elif self._in_body and self.cycle.response_complete:
            self._start_deadline()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP. uvicorn calls it while it handles the parser's error."""
        error = sys.exc_info()[1]
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            # The parser refuses methods that it does not know, before any route is looked at.
            refused = RefusedError(
                405, "method_not_allowed", "The method is unknown.", headers={"Allow": "POST"}
            )
        elif isinstance(error, Exception) and isinstance(error.__context__, RefusedError):
            refused = error.__context__
        else:
            refused = RefusedError(400, "invalid_http", msg)
        self._refuse(refused)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_the_reader(self.transport.get_write_buffer_size() + 1)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching_the_reader()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _refuse(self, refused: RefusedError) -> None:
        """Answer with an error and close, after what is being answered already."""
        self._stop_deadline()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._say(refused)
        elif self._in_body and not self.pipeline and not cycle.response_started:
            # It is the answer to the request whose body is being read: the app's is not sent.
            cycle.disconnected = True
            cycle.message_event.set()
            self._say(refused)
        else:
            self._deferred = refused

    def _say(self, refused: RefusedError) -> None:
        self._refused = True
        self._received_bytes = 0
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        request_id = self._request_id or request_id_of(None)
        CURRENT.set(request_id)
        forget_trace()
        response = refused.response()
        response.raw_headers.append((HEADER, request_id))
        lines = [b"%s: %s\r\n" % header for header in response.raw_headers]
        if b"connection" not in dict(response.raw_headers):
            lines.append(b"connection: close\r\n")
        head = b"".join([STATUS_LINE[refused.status], *lines, b"\r\n"])
        self.transport.write(head + bytes(response.body))
        self.connections.discard(self)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.bounds.timeout_seconds, self._expire)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self._in_body and self.cycle.response_complete:
            self.transport.abort()
            return
        bounds = self.bounds
        self._refuse(bounds.body_too_slow() if self._in_body else bounds.head_too_slow())

    def _watch_the_reader(self, size: int) -> None:
        """Abort where nothing was read of what waits to be written since its size was this."""
        self._stop_watching_the_reader()
        now = self.transport.get_write_buffer_size()
        if now >= size:
            self.transport.abort()
        else:
            self._stalled = self.loop.call_later(
                self.bounds.timeout_seconds, self._watch_the_reader, now
            )

    def _stop_watching_the_reader(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def make_protocol(within: ConnectionBounds) -> type[BoundedHttpProtocol]:
    """Return the protocol's class for uvicorn, which makes one for each connection."""

    class Protocol(BoundedHttpProtocol):
        bounds = within

    return Protocol
