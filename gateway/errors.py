"""Every answer that is not a success, and its one shape."""

from collections.abc import Mapping

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.capture import ErrorAnswer, ErrorDetail

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode


class RefusedError(Exception):
    """Raised when a request can't be served; it is the answer.

    Attributes:
        status: HTTP status.
        code: for programs, in snake case.
        message: for a person: what is wrong, what to do.
        path: of the first fault in the body, `$.messages[3].role`, where one applies.
        headers: to be sent along.

    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.path = path
        self.headers = headers

    def response(self) -> Response:
        """Return it as the answer. Logged at `debug` alone: clients may cause any number."""
        log.debug("refused", status=self.status, code=self.code)
        body = ErrorAnswer(False, ErrorDetail(self.code, self.message, self.path))
        return Response(_encode(body), self.status, self.headers, media_type="application/json")


def bad_request(code: str, message: str, path: str | None = None) -> RefusedError:
    return RefusedError(400, code, message, path)


def unauthorized(message: str) -> RefusedError:
    return RefusedError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


def too_large(limit_bytes: int) -> RefusedError:
    return RefusedError(
        413,
        "body_too_large",
        f"The body is over {limit_bytes} bytes: send the messages in several captures.",
        headers={"Connection": "close"},
    )


def unavailable(code: str, message: str, retry_after_seconds: int = 1) -> RefusedError:
    return RefusedError(503, code, message, headers={"Retry-After": str(retry_after_seconds)})


async def on_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - registered for this class alone
    return error.response()


async def on_exception(_request: Request, _error: Exception) -> Response:
    """Answer a fault of ours; the server logs it."""
    return RefusedError(500, "internal_error", "The gateway failed: send it again.").response()


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Give Starlette's own errors (unknown path, wrong method) the shape of ours."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    code, message = {
        404: ("not_found", "There is nothing at this path."),
        405: ("method_not_allowed", "This path does not take this method; see Allow."),
    }.get(error.status_code, ("http_error", error.detail))
    return RefusedError(error.status_code, code, message, headers=error.headers).response()
