"""The gateway as it is, but that it publishes nothing: every capture is acknowledged at once."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import cast
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from bench import data
from gateway.app import make_app
from gateway.capture import Bounds, CaptureEndpoint
from gateway.limits import RateLimits
from gateway.metrics import GatewayMetrics
from gateway.publisher import Published, Publisher
from gateway.registry import Registry
from gateway.replies import Expected
from openbat.chatbots import with_key
from openbat.garbage import collect_rarely
from openbat.gateway_role import server_config
from openbat.settings import Settings
from schemas.chatbots import chatbot_codec
from schemas.records import CaptureResult


class Nowhere:
    """In place of the publisher, and of the worker that replies."""

    def __init__(self) -> None:
        self._published: Published[Expected] = Published(asyncio.get_running_loop())
        self._published.soon.set_result([CaptureResult(data.TURN)])

    def publish(self, _conversation_id: bytes, _frame: bytes) -> tuple[Published[Expected], int]:
        return self._published, 0


def main() -> None:
    settings = Settings()
    collect_rarely()
    endpoint: list[CaptureEndpoint] = []
    metrics = GatewayMetrics()

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        registry = Registry()
        chatbot = with_key(data.chatbot(), os.environ["KEY"])
        registry.apply(UUID(chatbot.id).bytes, chatbot_codec.encode(chatbot))
        endpoint.append(
            CaptureEndpoint(
                registry,
                RateLimits(settings.rate_limit_storage, settings.default_rate_limit),
                cast("Publisher[Expected]", Nowhere()),
                Bounds(
                    settings.max_body_bytes,
                    settings.max_wait_seconds,
                ),
                metrics,
            )
        )
        yield

    async def capture(request: Request) -> Response:
        return await endpoint[0].post(request)

    async def unready() -> list[str]:
        return []

    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=2048)
    app = make_app(capture, unready, lifespan, "bench", metrics)
    server = uvicorn.Server(server_config(app, settings))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
