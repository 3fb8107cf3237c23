"""The gateway while it is pressed: how a good client fares, and what memory it takes."""

import contextlib
from collections.abc import Iterator

from schemas import sizes
from tests.fuzz.neighbours import Neighbours
from tests.report import Report
from tests.resident import resident_bytes
from tests.stack import Stack

P99_SECONDS = 1.0


class Watch:
    """The gateway while it is pressed: how a good client fares, what memory it takes."""

    def __init__(self, stack: Stack, report: Report, what: str) -> None:
        print(f"{what}: begun", flush=True)  # noqa: T201
        self._stack = stack
        self._report = report
        self._what = what
        (self._pid,) = stack.pids("gateway")
        self._before = resident_bytes(self._pid)
        self._most = 0

    def look(self) -> None:
        """Remember how much memory the gateway takes, where it is the most so far."""
        self._most = max(self._most, resident_bytes(self._pid))

    @contextlib.contextmanager
    def pressed(self) -> Iterator[Neighbours]:
        """Have a good client post meanwhile."""
        with Neighbours(self._stack) as meanwhile:
            yield meanwhile
        self.look()
        report_percentiles(self._report, self._what, meanwhile)
        meanwhile.assert_all_is_there(self._report, self._what)
        assert meanwhile.percentile(0.99) < P99_SECONDS

    def assert_grown_by_at_most(self, limit_bytes: int) -> None:
        grown = max(0, self._most - self._before)
        self._report.add(
            f"{self._what}: growth of the gateway's memory",
            round(grown / sizes.MIB, 1),
            "MiB",
            bound=f"at most {limit_bytes / sizes.MIB:.0f} MiB",
            holds=grown <= limit_bytes,
        )
        assert grown <= limit_bytes


def report_percentiles(report: Report, what: str, clients: Neighbours) -> None:
    for share in (0.5, 0.99):
        found = clients.percentile(share)
        report.add(
            f"{what}: a good client's p{share * 100:.0f}",
            round(found * 1000, 1),
            "ms",
            bound=f"under {P99_SECONDS * 1000:.0f} ms",
            holds=found < P99_SECONDS,
        )
