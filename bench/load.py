"""Captures at a steady rate, whatever the answers take: an open loop, in a process of its own.

`python -m bench.load URL KEY RUN RATE SECONDS` prints one line of JSON: latencies in
milliseconds, each from when its capture was due.
"""

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct

from bench import data
from bench.run import BenchError
from tests.stack import ROOT, Stack

WARM_UP_SECONDS = 1.0
GRACE_SECONDS = 5.0


class Latencies(Struct):
    """What came of a load; in milliseconds. What warms up counts in `all_sent` alone."""

    sent: int
    answered: int
    inexact: int
    p50: float
    p99: float
    all_sent: int


def decode(line: str) -> Latencies:
    """Return what a process of this module, or of `bench.produce`, printed."""
    return msgspec.json.decode(line, type=Latencies)


def post(stack: Stack, run: str, rate: float, seconds: float) -> Latencies:
    """Post to a stack, from a process of this module.

    Args:
        stack: whose demo chatbot it posts for.
        run: its conversations are its own.
        rate: captures per second.
        seconds: how long, after what warms up.

    Raises:
        BenchError: not every capture was answered.

    """
    url, key = f"{stack.gateway_url}/api/v1/capture", stack.state["api_key"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", url, key, run, str(rate), str(seconds)],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    found = decode(done.stdout)
    if found.answered != found.sent:
        raise BenchError(f"not every capture was answered: {found}")
    return found


class Client(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._received = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, received: bytes) -> None:
        self._received += received
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._received = b""
            self._load.answered(self, self._due, b" 200 " in head[:20] and b"provis" not in body)


class Load:
    """Sends requests when they are due, over as many connections as that takes."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = urlsplit(url)
        self._free: deque[Client] = deque()
        self.latencies: list[float] = []
        self.inexact = 0
        self.sent = self.all_sent = 0
        self._from = 0.0
        self._all_sent = False
        self._done = asyncio.Event()

    async def run(self, requests: Iterator[bytes], rate: float, seconds: float) -> None:
        start = self._loop.time() + 0.1
        self._from = start + WARM_UP_SECONDS
        for number in itertools.count():
            due = start + number / rate
            if due > start + WARM_UP_SECONDS + seconds:
                break
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            client = self._free.popleft() if self._free else await self._connect()
            client.send(next(requests), due)
            self.sent += due >= self._from
            self.all_sent += 1
        self._all_sent = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._done.wait()

    async def _connect(self) -> Client:
        _, client = await self._loop.create_connection(
            lambda: Client(self), self._host.hostname or "", self._host.port or 80
        )
        return client

    def answered(self, client: Client, due: float, is_exact: bool) -> None:
        if due >= self._from:
            self.latencies.append(self._loop.time() - due)
            self.inexact += not is_exact
        self._free.append(client)
        if self._all_sent and len(self.latencies) == self.sent:
            self._done.set()


def requests(url: str, key: str, run: str) -> Iterator[bytes]:
    """Return requests, one after the other, each with a capture that is new."""
    path = urlsplit(url).path
    for lap in itertools.count():
        for body in data.bodies():
            content = body.replace(data.RUN, f"{run}.{lap}", 1).encode()
            yield (
                f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            ).encode() + content


def summary(sent: int, seconds: list[float], inexact: int, all_sent: int) -> Latencies:
    ordered = sorted(1000 * each for each in seconds)
    at_50, at_99 = (
        ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in (0.5, 0.99)
    )
    return Latencies(sent, len(ordered), inexact, at_50, at_99, all_sent)


async def main(url: str, key: str, run: str, rate: float, seconds: float) -> None:
    load = Load(url)
    await load.run(requests(url, key, run), rate, seconds)
    found = summary(load.sent, load.latencies, load.inexact, load.all_sent)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    url, key, run, rate, seconds = sys.argv[1:]
    uvloop.run(main(url, key, run, float(rate), float(seconds)))
