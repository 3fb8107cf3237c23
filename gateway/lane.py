"""One partition of captures, as the gateway sees it."""

from typing import Generic, TypeVar

B = TypeVar("B")


class Lane(Generic[B]):
    """The batch that collects, and how many are on their way.

    `is_late` from when a capture was not acknowledged in time until one is acknowledged.
    """

    __slots__ = ("batch", "is_late", "on_their_way")

    def __init__(self) -> None:
        self.batch: B | None = None
        self.on_their_way = 0
        self.is_late = False

    @property
    def is_shut(self) -> bool:
        """Whether the log is late, and a capture waits already that will tell when it is back."""
        return self.is_late and (self.batch is not None or self.on_their_way > 0)
