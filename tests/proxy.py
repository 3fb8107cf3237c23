"""A TCP proxy whose network can be made slow, silent, or broken, while connections are open."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 * 1024
CHUNKS_ON_THE_WAY = 64
HOST = "127.0.0.1"


class Proxy:
    """Passes connections on to a port of this machine.

    Attributes:
        port: where it listens.
        target: the port that it passes connections on to.

    """

    def __init__(self, target: int = 0) -> None:
        self.port = 0
        self.target = target
        self._delay_seconds = 0.0
        self._bytes_per_second = float("inf")
        self._is_silent = False
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, HOST)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        await asyncio.gather(*self._serving)

    def slow(self, delay_seconds: float, bytes_per_second: float) -> None:
        """Let everything take longer from now on, each way."""
        self._delay_seconds = delay_seconds
        self._bytes_per_second = bytes_per_second

    def silence(self) -> None:
        """Forward nothing more, and close nothing.

        The connections that are open now, and those that are opened until `heal`, stay dead for
        good, as if a router had forgotten them: neither side is told.
        """
        self._is_silent = True
        for link in self._links:
            link.is_silent = True

    def reset(self) -> None:
        """Break every connection that is open now."""
        for link in list(self._links):
            link.abort()

    def heal(self) -> None:
        """Be a good network again, for all but the dead connections."""
        self.slow(0.0, float("inf"))
        self._is_silent = False

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        link.is_silent = self._is_silent
        self._links.add(link)
        try:
            if link.is_silent:
                await link.broken.wait()
                return
            with contextlib.suppress(OSError):
                there_reader, there = await asyncio.open_connection(HOST, self.target)
                link.writers.append(there)
                pumps = [
                    asyncio.create_task(self._pump(link, reader, there)),
                    asyncio.create_task(self._pump(link, there_reader, writer)),
                    asyncio.create_task(link.broken.wait()),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            link.abort()
            self._links.discard(link)

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass one direction on; return when it ends."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_ON_THE_WAY)
        writing = asyncio.create_task(self._write(link, on_the_way, writer))
        clock = asyncio.get_running_loop().time
        try:
            with contextlib.suppress(OSError):
                while chunk := await reader.read(CHUNK_BYTES):
                    await on_the_way.put((clock() + self._delay_seconds, chunk))
            if link.is_silent:
                await link.broken.wait()
            await on_the_way.put((0.0, b""))
            await writing
        finally:
            writing.cancel()

    async def _write(
        self,
        link: "_Link",
        on_the_way: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
    ) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while True:
                due, chunk = await on_the_way.get()
                wait = max(due - clock(), 0) + len(chunk) / self._bytes_per_second
                if wait:
                    await asyncio.sleep(wait)
                if link.is_silent:
                    await link.broken.wait()
                if not chunk:
                    return
                writer.write(chunk)
                await writer.drain()


class _Link:
    """One connection to the proxy, and the one that it made for it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.is_silent = False
        self.broken = asyncio.Event()

    def abort(self) -> None:
        self.broken.set()
        for writer in self.writers:
            writer.transport.abort()
