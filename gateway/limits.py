"""The rate limit per chatbot."""

import math
import time
from functools import lru_cache

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from gateway.errors import RefusedError
from schemas.chatbots import Chatbot

log = structlog.get_logger()

OFF = "off"
MAX_RATES = 1_000
"""Different rates whose parsed form is kept."""


@lru_cache(MAX_RATES)
def parsed(rate: str) -> RateLimitItem | None:
    """Return a rate, None where it can't be read."""
    try:
        return parse(rate)
    except ValueError:
        # The registry's writer and the settings take none such: a foreign one wrote it.
        log.error("a rate can't be read: the default counts instead", rate=rate)
        return None


class RateLimits:
    """Counts captures per chatbot, in memory or in a store that several gateways share.

    Args:
        storage_url: in the notation of the `limits` library, such as `async+memory://`.
        default: for chatbots that have none of their own; `off` or such as `600/minute`.

    Raises:
        ConfigurationError: the storage is unknown, not asynchronous, or lacks its library.

    """

    def __init__(self, storage_url: str, default: str) -> None:
        options = {"implementation": "redispy"} if "redis" in storage_url else {}
        storage = storage_from_string(storage_url, **options)
        if not isinstance(storage, Storage):
            raise ConfigurationError("it is not asynchronous: begin it with async+")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._storage_errors = storage.base_exceptions
        self._default = default

    async def take(self, chatbot: Chatbot) -> None:
        """Count one capture.

        Raises:
            RefusedError: 429, over the chatbot's rate.

        """
        rate = chatbot.settings.rate_limit or self._default
        if rate != OFF and parsed(rate) is None:
            rate = self._default
        item = None if rate == OFF else parsed(rate)
        if item is None:
            return
        try:
            if await self._limiter.hit(item, chatbot.id):
                return
            window = await self._limiter.get_window_stats(item, chatbot.id)
        except self._storage_errors as error:
            # A limit protects from too much; without its store, captures are worth more.
            log.warning("rates can't be counted; the capture is let through", error=repr(error))
            return
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
