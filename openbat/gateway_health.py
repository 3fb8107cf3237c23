"""A gateway's health at its metrics port: asked from another thread, as a worker's is."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from gateway.health import STARTING
from openbat.health import ALIVE, LOOK_SECONDS, READY, STUCK, Check, stuck


class GatewayHealth:
    """Answers for a gateway.

    Args:
        unready: returns why captures are not taken, in sentences; asked in the gateway's loop.

    Attributes:
        loop: the gateway's, None before it runs.

    """

    def __init__(self, unready: Callable[[], Coroutine[Any, Any, list[str]]]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._unready = unready

    def paths(self) -> Mapping[str, Check]:
        """Return what is asked at which path."""
        return {ALIVE: self.stuck, READY: self.unready}

    def stuck(self) -> list[str]:
        """Return why a restart would help."""
        return stuck(self.loop) if self.loop is not None else []

    def unready(self) -> list[str]:
        """Return why captures are not taken."""
        if self.loop is None:
            return [STARTING]
        asked = asyncio.run_coroutine_threadsafe(self._unready(), self.loop)
        try:
            return asked.result(LOOK_SECONDS)
        except TimeoutError:
            asked.cancel()
            return [STUCK]
