"""Whether a gateway is alive, and whether it takes captures."""

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import unavailable
from schemas.capture import ErrorDetail, Health

STARTING = (
    "The registry is not read yet: Kafka does not answer, or lacks the topics that "
    "`openbat migrate` makes."
)
KAFKA_AWAY = "Kafka does not answer."
STOPPING = "The gateway is stopping."

_encode = msgspec.json.Encoder().encode
_HEALTHY = _encode(Health(ok=True))


class NotReadyAnswer(msgspec.Struct):
    """What /readyz answers where captures are not taken: an error, and each reason for it."""

    ok: Literal[False]
    error: ErrorDetail
    reasons: list[str]


def routes(unready: Callable[[], Awaitable[list[str]]]) -> list[Route]:
    """Return /healthz and /readyz.

    Args:
        unready: returns why captures are not taken, in sentences; nothing where they are.

    """

    async def healthz(_request: Request) -> Response:
        return Response(_HEALTHY, media_type="application/json")

    async def readyz(_request: Request) -> Response:
        reasons = await unready()
        if not reasons:
            return Response(_HEALTHY, media_type="application/json")
        error = unavailable("not_ready", " ".join(reasons))
        body = NotReadyAnswer(False, ErrorDetail(error.code, error.message), reasons)
        return Response(_encode(body), error.status, error.headers, media_type="application/json")

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
