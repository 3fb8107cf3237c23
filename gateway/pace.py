"""How long a gateway collects captures of a partition before it sends them. Pure."""

SHARE = 0.25
"""Of what replies take: answers take this much longer at most."""
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

    def replied(self, seconds: float) -> None:
        """Take in how long a reply took, from its record's acknowledgement."""
        self._took += WEIGHT * (seconds - self._took)
        self.linger_seconds = min(max(SHARE * self._took, self._least), self._most)
