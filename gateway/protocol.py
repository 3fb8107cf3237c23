"""Requests that are no HTTP, answered in the one shape of all errors."""

import sys
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import RefusedError


class JsonHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but for what it says itself.

    Its parser refuses methods that it does not know, before any route is looked at.
    """

    _reasons: ClassVar[dict[int, bytes]] = {400: b"Bad Request", 405: b"Method Not Allowed"}

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
