"""How many messages of one chatbot are analysed before others have their turn. Pure."""

MESSAGES_AT_ONCE = 20
"""At least, and as long as it is not known how quick the analyzers are."""
MOST_AT_ONCE = 10_000
HELD_UP_SECONDS = 5.0
"""How long the others may wait for it."""
_WEIGHT = 0.3
"""Of the newest measurement."""


class Share:
    """A chatbot's share of a gulp, by how long analysis took of late.

    What is more is put off, which costs a third of what an offline analyzer takes for it: not worth
    it where that one is done with a whole gulp in a second or two, and all the difference where a
    model takes minutes.
    """

    def __init__(self) -> None:
        self._seconds_each: float | None = None

    @property
    def messages(self) -> int:
        """How many may be analysed at once."""
        if self._seconds_each is None:
            return MESSAGES_AT_ONCE
        affordable = HELD_UP_SECONDS / max(self._seconds_each, HELD_UP_SECONDS / MOST_AT_ONCE)
        return max(MESSAGES_AT_ONCE, int(affordable))

    def took(self, messages: int, seconds: float) -> None:
        """Take in how long the analyzers took for so many messages, from 1 on."""
        each = seconds / messages
        before = each if self._seconds_each is None else self._seconds_each
        self._seconds_each = before + _WEIGHT * (each - before)
