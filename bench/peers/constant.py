"""A bare Starlette route that returns a constant: what the frameworks alone cost."""

from serving import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ANSWER = (
    b'{"ok":true,"conversationId":"4f6e1c53-7d0b-5a0e-9d3c-0a8f6a2b7c11",'
    b'"messagesStored":2,"analysisQueued":true,"warnings":[]}'
)


async def capture(_request: Request) -> Response:
    return Response(ANSWER, media_type="application/json")


app = Starlette(routes=[Route("/api/v1/capture", capture, methods=["POST"])])

if __name__ == "__main__":
    serve(app, lifespan="off")
