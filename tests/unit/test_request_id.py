"""Every answer has a request id, and the log line of a fault names it; over real sockets."""

import json
import re
import subprocess
import sys

import pytest

from gateway.request_id import request_id_of
from tests.stack import ROOT
from tests.unit.test_protocol import BOUNDS, GET, HURRIED, POST, serve

OURS = r"[0-9a-f]{16}-[0-9a-f]+"


@pytest.mark.parametrize("sent", [b"a", b"x" * 128, b'!"#~', b"0193f1a0-0000-7000"], ids=repr)
def test_a_sane_id_is_kept(sent: bytes) -> None:
    assert request_id_of(sent) == sent


@pytest.mark.parametrize(
    "sent",
    [None, b"", b"x" * 129, b"a b", b"a\tb", b"\xe4", b"\x7f", b"a\n", b"a\r\nb: c"],
    ids=repr,
)
def test_any_other_is_replaced_by_one_of_ours(sent: bytes | None) -> None:
    assert re.fullmatch(OURS, request_id_of(sent).decode())
    assert request_id_of(sent) != request_id_of(sent)


async def test_requests_are_answered_with_their_own_ids_pipelined_too() -> None:
    named = GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine\r\n\r\n")
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(POST + named + GET)
        first, second, third = [(await client.answer()).headers["x-request-id"] for _ in range(3)]
    assert second == "mine"
    assert first != third
    assert all(re.fullmatch(OURS, each) for each in (first, third))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\nA: " + b"x" * 990 + b"\r\n\r\n", 431),
        (
            b"POST / HTTP/1.1\r\nX-Request-Id: mine\r\nContent-Length: 9999\r\n\r\n" + b"x" * 3000,
            413,
        ),
        (b"POST / HTTP/1.1\r\nX-Request-Id: mine\r\nContent-Length: 3\r\n\r\nab", 408),
    ],
    ids=["431", "413", "408"],
)
async def test_a_refusal_of_the_connections_own_names_the_request(sent: bytes, status: int) -> None:
    async with serve(HURRIED) as served:
        client = await served.connect()
        client.send(sent)
        answer = await client.answer()
    assert (answer.status, answer.headers["x-request-id"]) == (status, "mine")


async def test_what_is_no_request_has_an_id_and_not_that_of_the_one_before() -> None:
    async with serve(BOUNDS) as served:
        client = await served.connect()
        client.send(POST.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine\r\n\r\n"))
        assert (await client.answer()).headers["x-request-id"] == "mine"
        client.send(b"\x00\x01\r\n\r\n")
        answer = await client.answer()
    assert answer.status in {400, 405}
    assert re.fullmatch(OURS, answer.headers["x-request-id"])


FAILING = """
import asyncio, contextlib, socket, sys
from gateway.app import make_app
from gateway.metrics import GatewayMetrics
from openbat import logs
from openbat.gateway_role import server_config
from openbat.settings import Settings
import uvicorn

@contextlib.asynccontextmanager
async def lifespan(app):
    yield

async def fail(request):
    raise ArithmeticError("a fault of ours")

async def main():
    logs.configure("info", role="gateway")
    app = make_app(fail, None, lifespan, "1", GatewayMetrics())
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(app, Settings()))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    for request in (
        b"POST /api/v1/capture HTTP/1.1\\r\\nX-Request-Id: mine\\r\\nContent-Length: 0\\r\\n\\r\\n",
        b"GET /nowhere HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n",
    ):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(request)
        sys.stdout.write((await reader.read()).decode())
        writer.close()
    server.should_exit = True
    await serving

asyncio.run(main())
"""


def test_a_fault_of_ours_is_answered_and_logged_with_the_request_id() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FAILING], cwd=ROOT, capture_output=True, text=True, check=True
    )
    failed, missing = ran.stdout.split("HTTP/1.1 ")[1:]
    assert failed.startswith("500")
    assert "x-request-id: mine\n" in failed
    assert missing.startswith("404")
    assert re.search(rf"x-request-id: {OURS}\n", missing)
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if "ArithmeticError" in json.dumps(line)]
    assert (line["level"], line["request_id"], line["role"]) == ("error", "mine", "gateway")
