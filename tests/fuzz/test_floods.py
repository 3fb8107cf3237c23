"""Clients that take much and give nothing: others are answered meanwhile, memory is bounded."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import pytest

from openbat.gateway_role import KEEP_ALIVE_SECONDS
from openbat.open_files import raise_limit
from schemas import sizes
from tests.contract.client import CAPTURE
from tests.fuzz.conftest import TIMEOUT_SECONDS
from tests.fuzz.neighbours import Neighbours
from tests.fuzz.watch import Watch, report_percentiles
from tests.report import Report
from tests.stack import Stack, wait_until

IDLE, IDLE_SHORT, IDLE_MINIMUM = 10_000, 2_000, 1_000
OTHER_FILES = 500
"""That this process has open beside its idle connections."""
SLACK_SECONDS = 3.0
TRICKLE_SECONDS = 0.25
BYTES_PER_CONNECTION = 64 * sizes.KIB
FLOOD_BYTES = 128 * sizes.MIB
"""What the gateway may grow by, however many slow clients or headers there are."""
CAPTURES = 100

HEAD = b"POST " + CAPTURE.encode() + b" HTTP/1.1\r\nHost: x\r\nA: "
RESET = "reset"
FLOOD_SECONDS = 0.001
"""Between what a flooding client sends."""
FLOODS = [
    ("headers", b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 2000, "431"),
    ("one header", b"GET / HTTP/1.1\r\nA: ", b"x" * 12_000, "431"),
    ("requests", b"", b"GET /healthz HTTP/1.1\r\n\r\n" * 500, "400"),
]
"""What, what it opens with and goes on with, and the status that it must end with."""


@pytest.fixture(scope="module", autouse=True)
def _alone(hostile: Stack, report: Report) -> None:
    """Report how a good client fares while nobody presses the gateway, to compare with."""
    with Neighbours(hostile) as alone:
        wait_until(lambda: alone.posted >= CAPTURES, 60, "a good client alone")
    report_percentiles(report, "nobody else", alone)


@pytest.mark.timeout(600)
def test_idle_connections(hostile: Stack, report: Report, full: bool) -> None:
    """They are closed when an idle one is, and others are answered until then."""
    wanted = IDLE if full else IDLE_SHORT
    count = min(wanted, raise_limit() - OTHER_FILES)
    report.add(
        "idle connections",
        count,
        bound=f"{wanted}, at least {IDLE_MINIMUM} where fewer files may be open",
        holds=count >= IDLE_MINIMUM,
    )
    assert count >= IDLE_MINIMUM
    url = httpx.URL(hostile.gateway_url)
    watch = Watch(hostile, report, "idle connections")
    with contextlib.ExitStack() as connections, watch.pressed() as meanwhile:
        idle = [
            connections.enter_context(socket.create_connection((url.host, url.port or 80), 60))
            for _ in range(count)
        ]
        opened = meanwhile.posted
        wait_until(lambda: meanwhile.posted >= opened + CAPTURES, 60, "a good client")
        watch.look()
        for connection in idle[:: count // 20]:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert _answer_of(connection).startswith(b"HTTP/1.1 200")
        if full:
            begun = time.monotonic()
            for connection in idle:
                connection.settimeout(KEEP_ALIVE_SECONDS + SLACK_SECONDS)
                assert connection.recv(1) == b""
            seconds = time.monotonic() - begun
            report.add(
                "idle connections: all closed after",
                round(seconds),
                "s",
                bound=f"at most {KEEP_ALIVE_SECONDS + SLACK_SECONDS:.0f} s",
                holds=seconds <= KEEP_ALIVE_SECONDS + SLACK_SECONDS,
            )
    watch.assert_grown_by_at_most(BYTES_PER_CONNECTION * count)


@pytest.mark.timeout(600)
async def test_slow_headers_and_bodies(hostile: Stack, report: Report, full: bool) -> None:
    """A byte now and then holds no connection beyond the time that headers or a body have."""
    body = (
        HEAD
        + (
            f"\r\nAuthorization: Bearer {hostile.state['api_key']}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).encode()
    )
    statuses: Counter[str] = Counter()
    longest = 0.0

    async def press() -> None:
        nonlocal longest
        begun = time.monotonic()
        endings = await asyncio.gather(
            *(
                _trickle(hostile, *(opening, more))
                for opening, more in ((HEAD, b"x"), (body, b"1\r\n \r\n"))
                for _ in range(500 if full else 100)
            )
        )
        longest = max(longest, time.monotonic() - begun)
        statuses.update(endings)

    watch = await asyncio.to_thread(Watch, hostile, report, "slow clients")
    await _press(watch, press, 60 if full else 0)
    report.add("slow clients", statuses.total())
    report.add(
        "slow clients: how they ended",
        ", ".join(f"{count} x {status}" for status, count in statuses.items()),
        bound="408 each",
        holds=set(statuses) == {"408"},
    )
    report.add(
        "slow clients: longest connection",
        round(longest, 1),
        "s",
        bound=f"at most {TIMEOUT_SECONDS + SLACK_SECONDS:.0f} s",
        holds=longest <= TIMEOUT_SECONDS + SLACK_SECONDS,
    )
    watch.assert_grown_by_at_most(FLOOD_BYTES)
    assert set(statuses) == {"408"}
    assert longest <= TIMEOUT_SECONDS + SLACK_SECONDS


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("what", "opening", "more", "status"), FLOODS, ids=[flood[0] for flood in FLOODS]
)
async def test_floods(
    hostile: Stack, report: Report, full: bool, what: str, opening: bytes, more: bytes, status: str
) -> None:
    """What never ends is refused soon, and is not kept."""
    statuses: Counter[str] = Counter()

    async def press() -> None:
        statuses.update(await asyncio.gather(*(_flood(hostile, opening, more) for _ in range(50))))

    what = f"floods of {what}"
    watch = await asyncio.to_thread(Watch, hostile, report, what)
    await _press(watch, press, 45 if full else 1)
    report.add(
        f"{what}: how they ended",
        ", ".join(f"{count} x {ending}" for ending, count in statuses.items()),
        bound=f"{status} or reset, no other",
        holds=set(statuses) <= {status, RESET},
    )
    watch.assert_grown_by_at_most(FLOOD_BYTES)
    assert statuses[status]
    assert set(statuses) <= {status, RESET}


def _answer_of(connection: socket.socket) -> bytes:
    """Return a whole answer of /healthz; its head and its body may come apart."""
    answer = b""
    while not answer.endswith(b"}") and (received := connection.recv(4096)):
        answer += received
    return answer


async def _press(watch: Watch, press: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Press again and again for so long, once at least."""
    with contextlib.ExitStack() as pressed:
        await asyncio.to_thread(pressed.enter_context, watch.pressed())
        end = time.monotonic() + seconds
        while True:
            await press()
            await asyncio.to_thread(watch.look)
            if time.monotonic() >= end:
                break
        await asyncio.to_thread(pressed.close)


async def _trickle(stack: Stack, opening: bytes, more: bytes) -> str:
    """Send an opening, then a little now and then; return the status that it ends with."""
    reader, writer = await _connect(stack)
    try:
        writer.write(opening)
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            await asyncio.wait({answer}, timeout=TRICKLE_SECONDS)
            if not answer.done():
                writer.write(more)
        return answer.result().split(b" ")[1].decode()
    finally:
        writer.close()


async def _flood(stack: Stack, opening: bytes, more: bytes) -> str:
    """Send without end, and read; return the status that it ends with."""
    reader, writer = await _connect(stack)
    reading = asyncio.create_task(_last_status(reader))
    try:
        writer.write(opening)
        while not reading.done():
            writer.write(more)
            await writer.drain()
            await asyncio.wait({reading}, timeout=FLOOD_SECONDS)
    except ConnectionError:
        pass
    finally:
        writer.close()
    return await reading


async def _last_status(reader: asyncio.StreamReader) -> str:
    status = RESET
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            # A body before it ends without the end of a line.
            _, found, rest = line.rpartition(b"HTTP/1.1 ")
            status = rest.split(b" ")[0].decode() if found else status
    return status


async def _connect(stack: Stack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = httpx.URL(stack.gateway_url)
    return await asyncio.open_connection(url.host, url.port)
