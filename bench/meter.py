"""Processor time of processes, and time on the clock, between two moments."""

import time
from collections.abc import Sequence

import psutil


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of processes so far, with all their threads and children."""
    parents = [psutil.Process(pid) for pid in pids]
    every = [*parents, *(child for each in parents for child in each.children(recursive=True))]
    times = [each.cpu_times() for each in every]
    return float(sum(each.user + each.system for each in times))


class Meter:
    """Measures processes from when it is made."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._cpu = cpu_seconds(pids)
        self._clock = time.perf_counter()

    def cpu(self) -> float:
        """Return the processor seconds since then."""
        return cpu_seconds(self._pids) - self._cpu

    def wall(self) -> float:
        """Return the seconds on the clock since then."""
        return time.perf_counter() - self._clock
