"""Asks each process of the local stack how it is, all at once."""

import asyncio
import contextlib
import os
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from openbat.health import ALIVE, LOOK_SECONDS, METRICS, READY
from openbat.local import state
from openbat.status.seen import ProcessSeen

ALIVE_SECONDS = 1.0
"""How long a process may take to say that it is alive: nothing is waited for there."""
READY_SECONDS = LOOK_SECONDS + 1
"""How long one that is alive may take to say whether it is ready: it asks Kafka first."""


class _Health(Struct):
    """What a health check answers."""

    reasons: list[str] = []


async def look_at_processes(data_dir: Path) -> list[ProcessSeen] | None:
    """Return the processes of the local stack that runs in a directory, None where none does."""
    running = state.read(data_dir)
    if running is None:
        return None
    async with aiohttp.ClientSession() as http:
        return await asyncio.gather(*(_look(http, each) for each in running.processes))


async def _look(http: aiohttp.ClientSession, process: state.Process) -> ProcessSeen:
    name = process.name or process.role
    if not _is_alive(process.pid):
        return ProcessSeen(process.role, process.pid, alive=False, name=name)
    if process.metrics_url is None:
        return ProcessSeen(process.role, process.pid, alive=True, name=name)
    own = process.metrics_url.removesuffix(METRICS)
    alive = await _ask(http, ALIVE_SECONDS, own + ALIVE)
    if alive is None:
        return ProcessSeen(process.role, process.pid, True, name, answers=False)
    ready = await _ask(http, READY_SECONDS, own + READY)
    if ready is None:
        ready = [f"It did not say within {READY_SECONDS:g} s whether it is ready."]
    reasons = list(dict.fromkeys([*alive, *ready]))
    return ProcessSeen(process.role, process.pid, True, name, True, reasons)


async def _ask(http: aiohttp.ClientSession, seconds: float, url: str) -> list[str] | None:
    """Return the reasons that a check gives; None where there is no answer."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with http.get(url, timeout=timeout) as answer:
            return msgspec.json.decode(await answer.read(), type=_Health).reasons
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
        return None


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(PermissionError):  # it is somebody else's, so it is there
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
