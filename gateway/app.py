"""The gateway's routes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan, Receive, Scope, Send

from gateway import docs_html, docs_page, health, openapi
from gateway.errors import RefusedError, on_exception, on_http_exception, on_refused
from gateway.metrics import GatewayMetrics
from gateway.request_id import CURRENT, SCOPE, forget_trace

CAPTURE = "/api/v1/capture"

FORWARDED = ("forwarded", "x-forwarded-for", "via")
"""What proxies add: metrics name chatbots, and are not for who comes through one."""


class _App(Starlette):
    """Starlette, but that the one busy request goes past its middleware and router.

    They cost a fifth of what a capture takes beside its publishing; what they do for errors is
    done here.
    """

    def __init__(
        self,
        capture: Callable[[Request], Awaitable[Response]],
        metrics: GatewayMetrics,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._capture = capture
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        CURRENT.set(scope.get(SCOPE))
        if scope["type"] != "http" or scope["path"] != CAPTURE or scope["method"] != "POST":
            forget_trace()  # the tracer does, for captures
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        begun_at = time.perf_counter()
        try:
            response = await self._capture(request)
        except RefusedError as error:
            response = error.response()
        except Exception as error:
            response = await on_exception(request, error)
            self._metrics.answered(response.status_code, time.perf_counter() - begun_at)
            await response(scope, receive, send)
            raise  # the server logs it
        self._metrics.answered(response.status_code, time.perf_counter() - begun_at)
        await response(scope, receive, send)


def make_app(
    capture: Callable[[Request], Awaitable[Response]],
    unready: Callable[[], Awaitable[list[str]]],
    lifespan: Lifespan[Starlette],
    version: str,
    metrics: GatewayMetrics,
    admin: Sequence[Route] = (),
) -> Starlette:
    """Return the ASGI app.

    Args:
        capture: answers POST /api/v1/capture.
        unready: why captures are not taken, in sentences; nothing where they are.
        lifespan: connects what the two need, and closes it.
        version: of the project, for the OpenAPI document.
        metrics: told of every answer to a capture, and served at /metrics.
        admin: the routes of the admin API.

    """

    async def openapi_json(_request: Request) -> Response:
        return Response(openapi.document(version), media_type="application/json")

    async def docs(_request: Request) -> Response:
        # Made once, which takes longer than a capture should wait.
        page = await asyncio.to_thread(docs_page.page, openapi.document(version))
        return Response(page, headers=docs_html.HEADERS, media_type="text/html")

    async def show_metrics(request: Request) -> Response:
        if any(name in request.headers for name in FORWARDED):
            raise HTTPException(404)
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(metrics.registry), headers={"Content-Type": content_type})

    app = _App(
        capture,
        metrics,
        routes=[
            Route(CAPTURE, capture, methods=["POST"]),
            *health.routes(unready),
            Route("/openapi.json", openapi_json),
            Route("/docs", docs),
            Route("/metrics", show_metrics),
            *admin,
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
