"""How long a gateway collects captures before it sends them, and replies before it reads. Pure."""

SHARE = 0.5
"""Of what replies take that captures linger, and of that again that replies do."""
WEIGHT = 0.125
"""Of the newest reply in the moving average."""


BUSY_PER_SECOND = 1_500
"""Captures a second from which on records are let grow before the worker has begun to lag."""
BUSY_SECONDS = 0.01
"""The least linger then. It begins at half of that rate, and grows with it."""
RATE_SECONDS = 0.25
"""How often the rate is measured."""


class Pace:
    """The linger: a share of what replies take, and no less than the rate of captures asks for.

    A record costs the gateway, the log and the worker as much as several captures. While replies
    come at once, and captures are few, records leave at once. Where the worker lags, or soon would,
    they grow.

    Args:
        least_seconds: the linger where replies come at once, and captures are few.
        most_seconds: the linger where replies are late.

    Attributes:
        linger_seconds: as it is now.

    """

    __slots__ = (
        "_busy", "_least", "_most", "_sent", "_since", "_took", "linger_seconds",
    )  # fmt: skip

    def __init__(self, least_seconds: float, most_seconds: float) -> None:
        self._least = least_seconds
        self._most = max(least_seconds, most_seconds)
        self._took = 0.0
        self._busy = 0.0
        self._sent = 0
        self._since = 0.0
        self.linger_seconds = least_seconds

    @property
    def reading_seconds(self) -> float:
        """How long replies collect before the next are read: none where they come at once."""
        return SHARE * (self.linger_seconds - self._least)

    def replied(self, seconds: float) -> None:
        """Take in how long a reply took, from its record's acknowledgement."""
        self._took += WEIGHT * (seconds - self._took)
        self._settle()

    def sent(self, captures: int, now: float) -> None:
        """Take in that a record of so many captures leaves now."""
        self._sent += captures
        passed = now - self._since
        if passed >= RATE_SECONDS:
            share = self._sent / passed / BUSY_PER_SECOND
            self._busy = BUSY_SECONDS * min(max(2 * share - 1, 0.0), 1.0)
            self._sent, self._since = 0, now
            self._settle()

    def _settle(self) -> None:
        wanted = max(SHARE * self._took, self._busy, self._least)
        self.linger_seconds = min(wanted, self._most)
