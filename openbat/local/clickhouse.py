"""ClickHouse's engine inside this process, served over ClickHouse's own HTTP protocol.

One process owns the database at a path. Clients, `curl` and analysts speak to it as to any
ClickHouse server; an INSERT answered 200 is in the files and survives a kill of this process.
"""

import asyncio
import json
import os
import signal
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from openbat.local.clickhouse_engine import Engine, Result
from openbat.local.clickhouse_protocol import (
    MAX_BODY,
    RefusedError,
    content_type,
    decompress,
    explain,
    fields,
    parse,
    prologue,
    too_large,
)

_QUERIES_AT_ONCE = 32
_CONNECTIONS = 512  # one more is answered with 503; each holds a body of MAX_BODY at most
_CHUNK = 1 << 20
# Results are built whole in memory, which takes three times their size at worst. A larger one is
# refused, unless the client sets another limit, rather than risk the process that takes inserts.
# (The engine counts columns, not text: a constant over a billion rows still passes.)
_DEFAULTS = {"max_result_bytes": str(256 << 20)}
_GRACE_SECONDS = 4  # for running queries, which are then cancelled
_CANCEL_SECONDS = 2  # for what was cancelled to end, and again for the engine to close
# A server that hangs up an idle connection may do so under a client's next INSERT.
_KEEP_ALIVE_SECONDS = 3600


def _header(value: str) -> str:
    """`value` fit for a header, whatever the client made it of."""
    return quote(value, safe="/+ :,.")


def _answer(engine: Engine, request: Request, body: bytes | None) -> Response:
    """Do what a request asks. Blocks: belongs on a thread."""
    params = dict(request.query_params)
    kind = request.headers.get("Content-Type", "")
    headers = {
        "X-ClickHouse-Server-Display-Name": _header(engine.name),
        "X-ClickHouse-Query-Id": _header(params.get("query_id") or str(uuid.uuid4())),
        "X-ClickHouse-Timezone": _header(params.get("session_timezone", "UTC")),
        "Content-Type": "text/plain; charset=UTF-8",
    }
    try:
        if body is None:
            too_large()
        body = decompress(body, request.headers.get("Content-Encoding", "").lower())
        if kind.startswith("multipart/form-data"):
            params, body = params | fields(kind, body), b""
        sql = params.get("query", "").encode(errors="surrogateescape")
        sql = sql.rstrip() + b"\n" + body if sql and body else sql or body
        statement = parse(sql, params.get("default_format", "TabSeparated"))
        read_only = request.method != "POST"
        session = prologue(_DEFAULTS | params, params.get("database", ""), read_only=read_only)
        result = engine.run(session, statement)
    except RefusedError as error:
        status, code, text = explain(str(error), engine.version)
        headers["X-ClickHouse-Exception-Code"] = str(code)
        return Response(text, status, headers)
    headers["X-ClickHouse-Summary"] = json.dumps(result.summary, separators=(",", ":"))
    if statement.rows is None:
        headers["X-ClickHouse-Format"] = _header(statement.format)
        headers["Content-Type"] = content_type(statement.format)
    headers["Content-Length"] = str(len(result.view))
    return StreamingResponse(_chunks(result), headers=headers)


async def _chunks(result: Result) -> AsyncIterator[bytes]:
    for start in range(0, len(result.view), _CHUNK):
        # A copy, for the transport may hold on to it longer than we hold the result.
        yield bytes(result.view[start : start + _CHUNK])


async def _read(request: Request) -> bytes | None:
    """Read the body to its end; None when it is over MAX_BODY.

    To the end, for a client still sending may never see an answer given before.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        else:
            parts.clear()
    return b"".join(parts) if size <= MAX_BODY else None


def application(engine: Engine, pool: ThreadPoolExecutor) -> Starlette:
    """Speak the protocol over an open engine. Queries run on `pool`, not on the event loop."""

    async def ok(_: Request) -> Response:
        return PlainTextResponse("Ok.\n", headers={"Content-Type": "text/html; charset=UTF-8"})

    async def query(request: Request) -> Response:
        if request.method != "POST" and "query" not in request.query_params:
            return await ok(request)
        body = await _read(request)
        return await asyncio.get_running_loop().run_in_executor(
            pool, _answer, engine, request, body
        )

    return Starlette(
        routes=[
            Route("/", query, methods=["GET", "POST"]),
            Route("/ping", ok),
            Route("/replicas_status", ok),
        ]
    )


class _Server(uvicorn.Server):
    """Announces itself once a query sent to it from outside was answered."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], cancel: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._cancel = cancel

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit or not sockets:
            return
        host, port = sockets[0].getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        async with (
            aiohttp.ClientSession(raise_for_status=True) as http,
            http.get(url, params={"query": "SELECT 1"}) as answer,
        ):
            await answer.read()
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._cancel)
        await super().shutdown(sockets)


def serve(path: Path, fd: int | None, host: str, port: int, on_ready: Callable[[], None]) -> None:
    """Serve the database at `path` until SIGTERM or SIGINT; create it when missing.

    On the inherited listening socket `fd`, or else on `host` and `port`. Calls `on_ready` once a
    query was answered. Belongs on the main thread of a process of its own, and leaves it within
    ten seconds of the signal. Raises RuntimeError when another process has the database open.
    """
    if fd is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    else:
        listener = socket.socket(fileno=fd)
    engine = Engine(path)
    pool = ThreadPoolExecutor(_QUERIES_AT_ONCE, "query")
    config = uvicorn.Config(
        application(engine, pool),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS + _CANCEL_SECONDS,
    )
    server = _Server(config, on_ready, engine.cancel)

    def stop(*_: object) -> None:
        server.should_exit = True

    # Uvicorn takes the signals over while it runs and raises them again when it has stopped,
    # which must not end the process before the engine is closed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    engine.open()
    server.run(sockets=[listener])
    # What was acknowledged is in the files, so leaving a stuck engine behind loses nothing.
    deadline = threading.Timer(_CANCEL_SECONDS, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
    pool.shutdown(cancel_futures=True)
    engine.close()
    deadline.cancel()
