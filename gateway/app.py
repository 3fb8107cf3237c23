"""The gateway's routes."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan, Receive, Scope, Send

from gateway import openapi
from gateway.errors import RefusedError, on_exception, on_http_exception, on_refused, unavailable
from schemas.capture import Health

CAPTURE = "/api/v1/capture"

_HEALTHY = msgspec.json.encode(Health(ok=True))


class _App(Starlette):
    """Starlette, but that the one busy request goes past its middleware and router.

    They cost a fifth of what a capture takes beside its publishing; what they do for errors is
    done here.
    """

    def __init__(self, capture: Callable[[Request], Awaitable[Response]], **options: Any) -> None:
        super().__init__(**options)
        self._capture = capture

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != CAPTURE or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._capture(request)
        except RefusedError as error:
            response = error.response()
        except Exception as error:
            response = await on_exception(request, error)
            await response(scope, receive, send)
            raise  # the server logs it
        await response(scope, receive, send)


def make_app(
    capture: Callable[[Request], Awaitable[Response]],
    is_ready: Callable[[], Awaitable[bool]],
    lifespan: Lifespan[Starlette],
    version: str,
) -> Starlette:
    """Return the ASGI app.

    Args:
        capture: answers POST /api/v1/capture.
        is_ready: whether the registry has been read and the broker answers.
        lifespan: connects what the two need, and closes it.
        version: of the project, for the OpenAPI document.

    """

    async def healthz(_request: Request) -> Response:
        return Response(_HEALTHY, media_type="application/json")

    async def readyz(_request: Request) -> Response:
        if not await is_ready():
            raise unavailable(
                "not_ready", "The registry is not read yet, or Kafka does not answer."
            )
        return Response(_HEALTHY, media_type="application/json")

    async def openapi_json(_request: Request) -> Response:
        return Response(openapi.document(version), media_type="application/json")

    app = _App(
        capture,
        routes=[
            Route(CAPTURE, capture, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/openapi.json", openapi_json),
        ],
        exception_handlers={
            RefusedError: on_refused,
            HTTPException: on_http_exception,
            Exception: on_exception,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
