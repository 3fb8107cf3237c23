"""Waits for what a process can't start without."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

log = structlog.get_logger()

LONGEST_WAIT_SECONDS = 2.0

T = TypeVar("T")


async def until_it_answers(
    what: str, errors: tuple[type[Exception], ...], call: Callable[[], Awaitable[T]]
) -> T:
    """Call again and again until it raises none of the errors; return what it returned.

    Args:
        what: is waited for, for the log.
        errors: those that may pass.
        call: connects to it, say.

    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=0.1, max=LONGEST_WAIT_SECONDS),
        before_sleep=lambda state: log.warning(
            "not ready; trying again",
            what=what,
            error=str(state.outcome.exception() if state.outcome else ""),
        ),
    ):
        with attempt:
            return await call()
    raise AssertionError("unreachable")
