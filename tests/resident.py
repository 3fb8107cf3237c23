"""What a process has in memory."""

import psutil

from schemas import sizes


def resident_bytes(pid: int) -> int:
    """Return a process's resident set."""
    return int(psutil.Process(pid).memory_info().rss)


def resident_mib(pid: int) -> float:
    return resident_bytes(pid) / sizes.MIB
