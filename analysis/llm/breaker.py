"""A circuit breaker: an endpoint that does not answer is left alone for a while.

The kept libraries for asyncio read the clock themselves, and none has had a release within a year
(`purgatory` 3.0.1 of 2024-11, `aiobreaker` 1.2.0 of 2021-05); all that is needed is this.
"""


class Breaker:
    """Opens after failures in a row, and lets one call in a while try whether it is over.

    All times are in seconds, of any clock that only goes forward.

    Args:
        failures: in a row, after which it opens.
        open_seconds: between the calls that it lets through while it is open.

    """

    def __init__(self, failures: int, open_seconds: float) -> None:
        self._max_failures = failures
        self._open_seconds = open_seconds
        self._failures = 0
        self._open_until: float | None = None
        self._held_until = float("-inf")

    def admit(self, now: float) -> float:
        """Return 0 where a call may go, else the seconds until one may try again.

        The call that may try holds the next ones back for as long again, so there is one at a time,
        and one that never ends bars nobody for good.
        """
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        self._open_until = now + self._open_seconds
        return 0.0

    def succeeded(self, now: float) -> None:
        self._failures = 0
        # A call that was under way when the endpoint asked for a pause does not end the pause.
        if now >= self._held_until:
            self._open_until = None

    def failed(self, now: float) -> None:
        self._failures += 1
        if self._failures >= self._max_failures:
            self._open(now + self._open_seconds)

    def hold(self, now: float, seconds: float) -> None:
        """Open for at least as long, because the endpoint itself asks for it."""
        self._held_until = max(now + seconds, self._held_until)
        self._open(self._held_until)

    def _open(self, until: float) -> None:
        self._open_until = until if self._open_until is None else max(until, self._open_until)
