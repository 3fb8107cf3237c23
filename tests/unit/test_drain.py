"""A gateway's end: no connection is closed under a client that is sending."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway import drain
from gateway.connection_bounds import ConnectionBounds
from gateway.protocol import make_protocol
from tests.unit.fakes import LONG_SECONDS

REQUEST = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"
BOUNDS = ConnectionBounds(
    connections=2, head_bytes=1000, headers=50, pipelined=5, body_bytes=2000,
    timeout_seconds=LONG_SECONDS,
)  # fmt: skip
Bounded = make_protocol(BOUNDS)


class Serving:
    """A server that answers when it is let; and connections to it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        draining = self.draining = asyncio.Event()

        class Protocol(Bounded):  # type: ignore[misc, valid-type]
            def shutdown(self) -> None:
                super().shutdown()
                draining.set()

        app = Starlette(routes=[Route("/", self.answer)])
        self.server = uvicorn.Server(
            uvicorn.Config(app, http=Protocol, lifespan="off", log_config=None)
        )

    async def answer(self, _request: Request) -> Response:
        self.asked.set()
        await self.let.wait()
        return PlainTextResponse("ok")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.getsockname())


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    made = Serving()
    task = asyncio.create_task(made.server.serve([made.listener]))
    yield made
    made.server.should_exit = True
    await task


async def head_of(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert await reader.readexactly(2) == b"ok"
    return head


async def test_an_idle_connection_is_answered_once_more_and_told_to_close(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "DRAIN_SECONDS", LONG_SECONDS)
    reader, writer = await serving.connect()
    with contextlib.closing(writer):
        writer.write(REQUEST)
        assert "connection: close" not in await head_of(reader)
        serving.server.should_exit = True
        await serving.draining.wait()
        writer.write(REQUEST)
        assert "connection: close" in await head_of(reader)
        assert await reader.read() == b""


async def test_an_idle_connection_that_sends_nothing_more_is_closed(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "DRAIN_SECONDS", 0.05)
    reader, writer = await serving.connect()
    with contextlib.closing(writer):
        writer.write(REQUEST)
        await head_of(reader)
        serving.server.should_exit = True
        async with asyncio.timeout(5):
            assert await reader.read() == b""


async def test_a_head_that_has_begun_is_answered_before_the_end(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "DRAIN_SECONDS", LONG_SECONDS)
    reader, writer = await serving.connect()
    with contextlib.closing(writer):
        writer.write(REQUEST + REQUEST[:20])
        await head_of(reader)
        serving.server.should_exit = True
        await serving.draining.wait()
        writer.write(REQUEST[20:])
        assert "connection: close" in await head_of(reader)
        assert await reader.read() == b""


async def test_what_is_refused_at_the_end_is_read_to_its_end(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "DRAIN_SECONDS", LONG_SECONDS)
    reader, writer = await serving.connect()
    with contextlib.closing(writer):
        writer.write(REQUEST)
        await head_of(reader)
        serving.server.should_exit = True
        await serving.draining.wait()
        writer.write(b"GET / HTTP/1.1\r\nA: " + bytes(BOUNDS.head_bytes))
        assert (await reader.read()).startswith(b"HTTP/1.1 4")


async def test_a_request_under_way_is_answered_before_the_end(serving: Serving) -> None:
    serving.let.clear()
    reader, writer = await serving.connect()
    with contextlib.closing(writer):
        writer.write(REQUEST)
        await serving.asked.wait()
        serving.server.should_exit = True
        await serving.draining.wait()
        serving.let.set()
        assert "connection: close" in await head_of(reader)
        assert await reader.read() == b""
