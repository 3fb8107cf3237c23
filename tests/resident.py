"""What a process has in memory."""

import psutil


def resident_bytes(pid: int) -> int:
    """Return a process's resident set."""
    return int(psutil.Process(pid).memory_info().rss)
