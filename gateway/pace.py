"""How long a gateway collects captures before it sends them, and replies before it reads. Pure."""

SHARE = 0.25
"""Of what replies take that captures linger, and of that again that replies do."""
WEIGHT = 0.125
"""Of the newest reply in the moving average."""


class Pace:
    """The linger: a share of what replies take, within bounds.

    A record costs the gateway, the log and the worker as much as several captures. While replies
    come at once, records leave at once; where the worker lags they grow, and it catches up.

    Args:
        least_seconds: the linger where replies come at once.
        most_seconds: the linger where they are late.

    Attributes:
        linger_seconds: as it is now.

    """

    __slots__ = ("_least", "_most", "_took", "linger_seconds")

    def __init__(self, least_seconds: float, most_seconds: float) -> None:
        self._least = least_seconds
        self._most = max(least_seconds, most_seconds)
        self._took = 0.0
        self.linger_seconds = least_seconds

    @property
    def reading_seconds(self) -> float:
        """How long replies collect before the next are read: none where they come at once."""
        return SHARE * (self.linger_seconds - self._least)

    def replied(self, seconds: float) -> None:
        """Take in how long a reply took, from its record's acknowledgement."""
        self._took += WEIGHT * (seconds - self._took)
        self.linger_seconds = min(max(SHARE * self._took, self._least), self._most)
