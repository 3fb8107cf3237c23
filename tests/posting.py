"""Clients that post for as long as a block lasts."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any

import aiohttp

REQUEST_SECONDS = 45.0


class Posting:
    """Tasks that post. At the end of the block each finishes what it is at.

    Where the block fails they are cancelled.
    """

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def _connect(self, headers: Mapping[str, str] | None = None) -> None:
        """Make the session that they post through, which sends these headers each time."""
        self._http = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            connector=aiohttp.TCPConnector(limit=0),
        )

    def _begin(self, talks: Iterable[Coroutine[Any, Any, None]]) -> None:
        self._tasks = [asyncio.create_task(talk) for talk in talks]

    async def __aexit__(
        self,
        error: type[BaseException] | None,
        _value: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._stopping.set()
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)
        await self._http.close()

    async def _is_stopped_within(self, seconds: float) -> bool:
        """Return as soon as they have to end, or else after this time; whether they have."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._stopping.wait()
        except TimeoutError:
            return False
