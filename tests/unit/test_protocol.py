"""What a connection may take, and what a client is told that takes more, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from msgspec.structs import replace
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.connection_bounds import ConnectionBounds
from gateway.protocol import LINGER_BYTES, BoundedHttpProtocol, make_protocol
from tests.unit.fakes import LONG_SECONDS

SHORT_SECONDS = 0.05
BOUNDS = ConnectionBounds(
    connections=2,
    head_bytes=1000,
    headers=50,
    pipelined=5,
    body_bytes=2000,
    timeout_seconds=LONG_SECONDS,
)
HURRIED = replace(BOUNDS, timeout_seconds=SHORT_SECONDS)
GET = b"GET / HTTP/1.1\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER_BYTES = 8_000_000


class Answer:
    """A response as a client reads it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines if line)
        self.body = body

    @property
    def code(self) -> str:
        error = json.loads(self.body)
        assert error["ok"] is False
        assert self.headers["content-type"] == "application/json"
        assert self.headers["connection"].lower() == "close"
        return str(error["error"]["code"])


class Connection:
    """A client's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> Answer:
        head = await self.reader.readuntil(b"\r\n\r\n")
        answer = Answer(head, b"")
        answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        return answer

    async def at_end(self) -> bool:
        """Wait until the server closes; return whether nothing more came."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


class Served:
    """An application behind the protocol, which answers with a body's bytes when it may."""

    def __init__(self) -> None:
        self.address: tuple[str, int]
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.headers: list[dict[str, str]] = []
        self.disconnected = asyncio.Event()
        self.connections: set[Any]
        self.made: list[BoundedHttpProtocol] = []
        self.clients: list[Connection] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/early":
            await Response(b"early")(scope, receive, send)
            return
        if scope["path"] == "/large":
            await Response(bytes(ANSWER_BYTES))(scope, receive, send)
            return
        try:
            body = await request.body()
        except ClientDisconnect:
            self.disconnected.set()
            return
        self.headers.append(dict(request.headers))
        await self.may_answer.wait()
        await Response(body)(scope, receive, send)

    async def connect(self) -> Connection:
        self.clients.append(Connection(*await asyncio.open_connection(*self.address)))
        return self.clients[-1]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - uvicorn has no events for these
            await asyncio.sleep(0)


@asynccontextmanager
async def serve(
    bounds: ConnectionBounds, keep_alive_seconds: int = 600, app: ASGIApp | None = None
) -> AsyncIterator[Served]:
    """Serve an application, `Served` itself where there is no other."""
    served = Served()
    config = uvicorn.Config(app or served, ws="none", timeout_keep_alive=keep_alive_seconds)
    state = ServerState()
    served.connections = state.connections
    made = make_protocol(bounds)

    def protocol() -> BoundedHttpProtocol:
        served.made.append(made(config=config, server_state=state, app_state={}))
        return served.made[-1]

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    served.address = server.sockets[0].getsockname()
    try:
        yield served
    finally:
        server.close()
        for client in served.clients:
            client.writer.close()
        for connection in served.made:
            connection.transport.abort()
        await until(lambda: all(connection.parser is None for connection in served.made))


async def test_requests_on_one_connection_are_answered_in_order() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(POST + GET + POST)
        answers = [await client.answer() for _ in range(3)]
    assert [answer.body for answer in answers] == [b"abc", b"", b"abc"]


@pytest.mark.parametrize(
    ("begun", "code"),
    [
        (b"G", "head_too_slow"),
        (b"GET / HTTP/1.1\r\nA: b", "head_too_slow"),
        (b"GET / HTTP/1.1\r\n", "head_too_slow"),
        (b"\r\n", "head_too_slow"),
        (b"\r\n\r\n", "head_too_slow"),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", "body_too_slow"),
        (CHUNKED + b"1\r\na\r\n", "body_too_slow"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("before", [b"", POST], ids=["first", "second"])
async def test_a_head_or_a_body_that_does_not_end_is_408(
    begun: bytes, code: str, before: bytes
) -> None:
    async with serve(HURRIED) as served:
        client = await served.connect()
        if before:
            client.send(before)
            assert (await client.answer()).status == 200
        client.send(begun)
        answer = await client.answer()
        assert (answer.status, answer.code) == (408, code)
        assert await client.at_end()


async def test_a_head_that_begins_with_the_end_of_a_body_is_given_all_its_size() -> None:
    async with serve(HURRIED) as served:
        client = await served.connect()
        body = b"x" * (HURRIED.head_bytes + 100)
        client.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
        client.send(body + b"GET / ")
        assert (await client.answer()).body == body
        assert (await client.answer()).code == "head_too_slow"


async def test_bytes_of_a_head_now_and_then_do_not_lengthen_its_time() -> None:
    async with serve(HURRIED) as served:
        client = await served.connect()

        async def trickle() -> None:
            client.send(b"GET / HTTP/1.1\r\nA: ")
            while True:
                client.send(b"x")
                await asyncio.sleep(SHORT_SECONDS / 10)

        trickling = asyncio.create_task(trickle())
        assert (await client.answer()).code == "head_too_slow"
        trickling.cancel()


async def test_a_client_that_says_nothing_is_closed_as_an_idle_one_is() -> None:
    async with serve(BOUNDS, keep_alive_seconds=0) as served:
        client = await served.connect()
        assert await client.at_end()


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nA: " + b"x" * 2000,
        b"GET / HTTP/1.1\r\n" + b"a: bcdefghijklmnopqrstuvwxyz\r\n" * 50,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 52,
        b"GET /" + b"x" * 2000,
        b"GET / HTTP/1.1\r\n" + b"x" * 2000 + b": y",
        b"\r\n" * 1000,
    ],
    ids=["value", "headers", "many headers", "path", "name", "empty lines"],
)
async def test_a_head_over_the_limit_is_431(head: bytes, pieces: int) -> None:
    """Whether it comes to its end or not."""
    for end in (b"", b"\r\n\r\n"):
        async with serve(BOUNDS) as served:
            client = await served.connect()
            step = len(head) // pieces
            for at in range(0, len(head), step):
                client.send(head[at : at + step])
                await asyncio.sleep(0)
            client.send(end)
            answer = await client.answer()
            assert (answer.status, answer.code) == (431, "headers_too_large")
            assert served.headers == []


async def test_as_many_headers_as_may_be_are_taken() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * BOUNDS.headers + b"\r\n")
        assert (await client.answer()).status == 200


async def test_requests_that_do_not_wait_for_answers_are_bounded() -> None:
    """Those that are taken are answered, and then it is said that the rest is not."""
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(POST * 1000)
        for _ in range(1 + BOUNDS.pipelined):
            assert (await client.answer()).body == b"abc"
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "too_many_requests")
        assert await client.at_end()


async def test_what_a_refused_client_still_sends_is_taken_for_a_while_only() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(b"no http\r\n\r\n" + bytes(3 * LINGER_BYTES))
        assert (await client.answer()).status == 405
        await until(lambda: served.made[0].flow.read_paused)


async def test_one_connection_too_many_is_503_and_the_others_go_on() -> None:
    async with serve(BOUNDS) as served:
        first, second = [await served.connect() for _ in range(2)]
        third = await served.connect()
        answer = await third.answer()
        assert (answer.status, answer.code) == (503, "too_many_connections")
        assert int(answer.headers["retry-after"]) > 0
        for client in (first, second):
            client.send(POST)
            assert (await client.answer()).status == 200
        first.writer.close()
        await first.writer.wait_closed()
        await until(lambda: len(served.connections) == 1)
        fourth = await served.connect()
        fourth.send(POST)
        assert (await fourth.answer()).status == 200


async def test_what_is_no_http_does_not_answer_the_request_before_it() -> None:
    """A capture that is stored must not look refused."""
    async with serve(BOUNDS) as served:
        served.may_answer.clear()
        client = await served.connect()
        client.send(POST + b"GET no http\r\n\r\n")
        await until(lambda: served.headers)
        served.may_answer.set()
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"abc")
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "invalid_http")
        assert await client.at_end()


@pytest.mark.parametrize(
    "second", [b"GET http:// HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * 2000]
)
async def test_nor_does_a_second_request_that_is_refused(second: bytes) -> None:
    async with serve(BOUNDS) as served:
        served.may_answer.clear()
        client = await served.connect()
        client.send(POST)
        await until(lambda: served.headers)
        client.send(second)
        served.may_answer.set()
        assert (await client.answer()).body == b"abc"
        assert (await client.answer()).status in {400, 431}


async def test_a_broken_body_is_the_end_of_its_own_request() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(CHUNKED + b"3\r\nabc\r\nno size\r\n")
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "invalid_http")
        async with asyncio.timeout(5):
            await served.disconnected.wait()
        assert await client.at_end()


async def test_so_it_is_behind_others_that_are_answered_first() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(POST + GET + CHUNKED + b"3\r\nabc\r\nno size\r\n")
        assert [(await client.answer()).body for _ in range(2)] == [b"abc", b""]
        async with asyncio.timeout(5):
            answer = await client.answer()
            assert (answer.status, answer.code) == (400, "invalid_http")
            await served.disconnected.wait()
            assert await client.at_end()


async def test_frames_of_a_body_are_bounded_too() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(CHUNKED + b"1;" + b"x" * 3000)
        answer = await client.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")


async def test_a_trailer_is_no_header() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
        assert (await client.answer()).body == b"abc"
        assert served.headers == [{"transfer-encoding": "chunked"}]


async def test_the_rest_of_a_body_that_is_answered_is_not_waited_for_for_ever() -> None:
    async with serve(HURRIED) as served:
        client = await served.connect()
        client.send(b"POST /early HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        assert (await client.answer()).body == b"early"
        client.send(b"x")
        assert await client.at_end()


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    async with serve(HURRIED) as served:
        client = await served.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"GET /large HTTP/1.1\r\n\r\n")
        await until(lambda: served.connections)
        await until(lambda: not served.connections)


async def test_a_client_that_reads_slowly_gets_all() -> None:
    # Long enough for a busy machine to go on reading in it, shorter than all the reading takes.
    bounds = replace(BOUNDS, timeout_seconds=0.5)
    async with serve(bounds) as served:
        client = await served.connect()
        client.send(b"GET /large HTTP/1.1\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        size = 0
        while size < ANSWER_BYTES:
            size += len(await client.reader.read(200_000))
            await asyncio.sleep(bounds.timeout_seconds / 50)
        assert size == ANSWER_BYTES
