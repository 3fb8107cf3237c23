"""What the processes of a stack keep in memory, as the kernel counts it."""

import statistics

from schemas import sizes
from tests.resident import resident_bytes
from tests.stack import Stack


class Memory:
    """Samples of every process of a stack, by role and process id."""

    def __init__(self, stack: Stack) -> None:
        self._processes = {
            (found["role"], int(found["pid"])): list[int]() for found in stack.state["processes"]
        }

    def sample(self) -> None:
        """Take a sample. Fails where a process was replaced."""
        for (_, pid), samples in self._processes.items():
            samples.append(resident_bytes(pid))

    def roles(self) -> list[str]:
        return list(dict.fromkeys(role for role, _ in self._processes))

    def median_bytes(self, role: str, quarter: int) -> float:
        """Return the median of a role's largest process in a quarter of the time, from 1 to 4."""
        return max(
            statistics.median(
                samples[len(samples) * (quarter - 1) // 4 : len(samples) * quarter // 4]
            )
            for (name, _), samples in self._processes.items()
            if name == role
        )

    def line(self) -> str:
        """Return the newest sample, for a person."""
        return " ".join(
            f"{role}={samples[-1] // sizes.MIB}" for (role, _), samples in self._processes.items()
        )
