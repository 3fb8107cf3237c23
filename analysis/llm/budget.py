"""What a chatbot may spend in a day, and what it has spent, over all workers.

Days are UTC's, counted from 1970. Tokens are counted and kept; money is tokens times prices, so a
changed price changes no record.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple, Protocol

from msgspec import Meta, Struct

DAY_SECONDS = 86_400
MILLION = 1_000_000


class Usage(NamedTuple):
    """Tokens: those that were sent, and those that the model made."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def minus(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
        )


class Prices(Struct, frozen=True):
    """What a million tokens cost, in whatever money `DailyLimits.cost` is."""

    prompt_per_million: float = 0.0
    completion_per_million: float = 0.0

    def cost(self, usage: Usage) -> float:
        return (
            usage.prompt_tokens * self.prompt_per_million
            + usage.completion_tokens * self.completion_per_million
        ) / MILLION


class DailyLimits(Struct, frozen=True):
    """What a chatbot may spend in a day; None is without end."""

    tokens: int | None = None
    cost: float | None = None

    def allow(self, usage: Usage, prices: Prices) -> bool:
        return (self.tokens is None or sum(usage) <= self.tokens) and (
            self.cost is None or prices.cost(usage) <= self.cost
        )


Tokens = Annotated[int, Meta(ge=0, le=2**62)]
"""Counted up, and must still fit into 64 bits then."""


class Tally(Struct, frozen=True, array_like=True):
    """What one worker has spent on one chatbot in one day so far: it only grows.

    `day` is days since 1970, UTC.
    """

    worker: str
    chatbot_id: bytes
    day: Annotated[int, Meta(ge=0)]
    prompt_tokens: Tokens
    completion_tokens: Tokens

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens)


class Budget(Protocol):
    """Knows what may be spent, and is told what was. `now` is in seconds since 1970."""

    def may_spend(self, chatbot_id: bytes, usage: Usage, now: float) -> bool:
        """Return whether this much may be spent on top of all that was."""

    async def spent(self, chatbot_id: bytes, usage: Usage, now: float) -> None:
        """Take in what was spent; what it was spent for is handed on when this returns."""


def day_of(now: float) -> int:
    """Return the UTC day of a time in seconds since 1970."""
    return int(now // DAY_SECONDS)


class Spending:
    """Sums the tallies of all workers, per chatbot and day.

    Tallies are cumulative, so each may be learned any number of times and in any order. Before it
    adds the first time, a worker learns all there are, its own of the time before a restart too:
    else its new ones begin below them, and are lost in them. No two workers share a name.

    Args:
        worker: this one's name, the same after a restart.

    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._days: dict[int, dict[bytes, dict[str, Tally]]] = {}

    def add(self, chatbot_id: bytes, usage: Usage, now: float) -> Tally:
        """Count what this worker has spent; return its new tally, which the others shall learn."""
        day = day_of(now)
        self._forget_before(day - 1)
        old = self._tallies(day, chatbot_id).get(self._worker)
        total = usage.plus(old.usage if old else Usage())
        tally = Tally(self._worker, chatbot_id, day, *total)
        self.learn(tally)
        return tally

    def learn(self, tally: Tally) -> None:
        """Take in another worker's tally, or an own one of before a restart; the larger wins."""
        tallies = self._tallies(tally.day, tally.chatbot_id)
        old = tallies.get(tally.worker, tally)
        tallies[tally.worker] = Tally(
            tally.worker,
            tally.chatbot_id,
            tally.day,
            max(old.prompt_tokens, tally.prompt_tokens),
            max(old.completion_tokens, tally.completion_tokens),
        )

    def total(self, chatbot_id: bytes, day: int) -> Usage:
        """Return what all workers have spent on a chatbot in a day."""
        total = Usage()
        for tally in self._days.get(day, {}).get(chatbot_id, {}).values():
            total = total.plus(tally.usage)
        return total

    def _tallies(self, day: int, chatbot_id: bytes) -> dict[str, Tally]:
        return self._days.setdefault(day, {}).setdefault(chatbot_id, {})

    def _forget_before(self, day: int) -> None:
        for old in [known for known in self._days if known < day]:
            del self._days[old]


class DailyBudget:
    """A `Budget` over `Spending`.

    Args:
        spending: summed over all workers.
        limits_of: a chatbot's limits.
        prices: what tokens cost.
        publish: hands a tally on to the other workers; what it raises, the analyzer raises.

    """

    def __init__(
        self,
        spending: Spending,
        limits_of: Callable[[bytes], DailyLimits],
        prices: Prices,
        publish: Callable[[Tally], Awaitable[None]],
    ) -> None:
        self._spending = spending
        self._limits_of = limits_of
        self._prices = prices
        self._publish = publish

    def may_spend(self, chatbot_id: bytes, usage: Usage, now: float) -> bool:
        after = self._spending.total(chatbot_id, day_of(now)).plus(usage)
        return self._limits_of(chatbot_id).allow(after, self._prices)

    async def spent(self, chatbot_id: bytes, usage: Usage, now: float) -> None:
        await self._publish(self._spending.add(chatbot_id, usage, now))
