"""The faults of the matrix: who dies or is paused, and at which moment."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash import failpoints
from tests.stack import Stack

PAUSED_SECONDS = 13.0
"""Longer than a session of the workers, which is 10 s."""
REACHED_SECONDS = 30.0
POLL_SECONDS = 0.02

SCALED = ("gateway", "conversations", "clickhouse")
ROLES = (*SCALED, "kafka", "clickhouse-server")
PAIRS = (
    ("gateway", "conversations"),
    ("conversations", "clickhouse"),
    ("kafka", "conversations"),
    ("kafka", "gateway"),
    ("clickhouse", "clickhouse-server"),
    ("kafka", "clickhouse-server"),
)


class NotReachedError(Exception):
    """Raised when no process came to an armed moment: the matrix would test nothing there."""


@dataclass
class Cluster:
    """A running stack whose processes may be killed; they are replaced by their supervisor."""

    stack: Stack
    failpoints: Path
    dice: random.Random

    def kill(self, role: str, count: int | None = None) -> int:
        """Kill that many processes of a role, all of them by default; return how many."""
        pids = self.stack.pids(role)
        chosen = self.dice.sample(pids, count or len(pids))
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(chosen)

    def lose_disk(self, pid: int) -> None:
        """Take a conversations worker's table away: whoever replaces the process has none."""
        for table in self.stack.data_dir.glob("workers/conversations-*/v*"):
            opened = Path(f"/proc/{pid}/fd").iterdir()
            with contextlib.suppress(FileNotFoundError):
                if any(str(table.absolute()) in str(fd.readlink()) for fd in opened):
                    # A rename is atomic: the dying process keeps its files, the next finds none.
                    table.rename(self.stack.data_dir / f"lost-{uuid.uuid4().hex}")

    async def reached(self, moment: str) -> int:
        """Return who came to an armed moment.

        Raises:
            NotReachedError: nobody did.

        """
        end = time.monotonic() + REACHED_SECONDS
        while (pid := failpoints.taken_by(self.failpoints, moment)) is None:
            if time.monotonic() > end:
                failpoints.disarm(self.failpoints, moment)
                raise NotReachedError(moment)
            await asyncio.sleep(POLL_SECONDS)
        return pid


@dataclass(frozen=True)
class Fault:
    """One kind of fault; `inject` returns when it is over, and how many processes it killed."""

    role: str
    moment: str
    inject: Callable[[Cluster], Awaitable[int]]


def faults() -> list[Fault]:
    """Return every kind of fault once."""
    return [
        *(Fault(role, "at random, one", _killing(role, 1)) for role in ROLES),
        *(Fault(role, "at random, all", _killing(role, None)) for role in SCALED),
        *(Fault(" and ".join(pair), "at random, all", _killing_both(*pair)) for pair in PAIRS),
        Fault("conversations", "at random, one with its disk", _losing_disk(1)),
        Fault("conversations", "at random, all with their disks", _losing_disk(None)),
        *(Fault(role, "paused beyond its session", _pausing(role)) for role in ROLES),
        *_at_moments(),
    ]


def _at_moments() -> Iterator[Fault]:
    for moment in failpoints.MOMENTS:
        role = moment.partition(".")[0]
        if moment in failpoints.REBALANCE:
            yield Fault(role, moment, _in_rebalance(moment))
        elif moment in failpoints.RECOVERY:
            yield Fault(role, moment, _in_recovery(moment))
        else:
            yield Fault(role, moment, _at(moment))


def _killing(role: str, count: int | None) -> Callable[[Cluster], Awaitable[int]]:
    async def inject(cluster: Cluster) -> int:
        return cluster.kill(role, count)

    return inject


def _killing_both(first: str, second: str) -> Callable[[Cluster], Awaitable[int]]:
    async def inject(cluster: Cluster) -> int:
        return cluster.kill(first) + cluster.kill(second)

    return inject


def _losing_disk(count: int | None) -> Callable[[Cluster], Awaitable[int]]:
    async def inject(cluster: Cluster) -> int:
        pids = cluster.stack.pids("conversations")[:count]
        for pid in pids:
            cluster.lose_disk(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    return inject


def _pausing(role: str) -> Callable[[Cluster], Awaitable[int]]:
    async def inject(cluster: Cluster) -> int:
        pid = cluster.dice.choice(cluster.stack.pids(role))
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSED_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return 0

    return inject


def _at(moment: str) -> Callable[[Cluster], Awaitable[int]]:
    async def inject(cluster: Cluster) -> int:
        failpoints.arm(cluster.failpoints, moment)
        await cluster.reached(moment)
        return 1

    return inject


def _in_rebalance(moment: str) -> Callable[[Cluster], Awaitable[int]]:
    async def inject(cluster: Cluster) -> int:
        failpoints.arm(cluster.failpoints, moment)
        killed = cluster.kill("conversations", 1)
        await cluster.reached(moment)
        return killed + 1

    return inject


def _in_recovery(moment: str) -> Callable[[Cluster], Awaitable[int]]:
    lose_one = _losing_disk(1)

    async def inject(cluster: Cluster) -> int:
        failpoints.arm(cluster.failpoints, moment)
        killed = await lose_one(cluster)
        await cluster.reached(moment)
        return killed + 1

    return inject


def clear(directory: Path) -> None:
    """Forget what was armed and taken."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
