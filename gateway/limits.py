"""The rate limit per chatbot."""

import math
import time

from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.storage import storage_from_string

from gateway.errors import RefusedError
from schemas.chatbots import Chatbot

OFF = "off"


class RateLimits:
    """Counts captures per chatbot, in memory or in a store that several gateways share.

    Args:
        storage_url: in the notation of the `limits` library, such as `async+memory://`.
        default: for chatbots that have none of their own; `off` or such as `600/minute`.

    """

    def __init__(self, storage_url: str, default: str) -> None:
        storage = storage_from_string(storage_url)
        assert isinstance(storage, Storage)  # noqa: S101 - an async+ URL gives an async storage
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._default = default
        self._parsed: dict[str, RateLimitItem] = {}

    async def take(self, chatbot: Chatbot) -> None:
        """Count one capture.

        Raises:
            RefusedError: 429, over the chatbot's rate.

        """
        rate = chatbot.settings.rate_limit or self._default
        if rate == OFF:
            return
        item = self._parsed.get(rate)
        if item is None:
            item = self._parsed[rate] = parse(rate)
        if await self._limiter.hit(item, chatbot.id):
            return
        window = await self._limiter.get_window_stats(item, chatbot.id)
        seconds = max(1, math.ceil(window.reset_time - time.time()))
        raise RefusedError(
            429,
            "rate_limited",
            f"Over the chatbot's rate of {rate}: try again in {seconds} s.",
            headers={
                "Retry-After": str(seconds),
                "RateLimit-Policy": f'"chatbot";q={item.amount};w={item.get_expiry()}',
                "RateLimit": f'"chatbot";r=0;t={seconds}',
            },
        )
