"""Waits for what a process can't start without."""

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

log = structlog.get_logger()

LONGEST_WAIT_SECONDS = 2.0
TOLD_AGAIN_SECONDS = 10.0
"""After how long the same error is told again."""

_TOO = {"Kafka": "aiokafka"}
"""What logs as an error what is told here as a warning, by what is waited for."""

T = TypeVar("T")


async def until_it_answers(
    what: str,
    errors: tuple[type[Exception], ...],
    call: Callable[[], Awaitable[T]],
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call again and again until it raises none of the errors; return what it returned.

    Args:
        what: is waited for, for the log.
        errors: those that may pass.
        call: connects to it, say.
        clock: seconds that only grow.

    """
    begun_at = clock()
    told_at: dict[str, float] = {}

    def tell(state: RetryCallState) -> None:
        error = str(state.outcome.exception() if state.outcome else "")
        now = clock()
        if now - told_at.get(error, -TOLD_AGAIN_SECONDS) < TOLD_AGAIN_SECONDS:
            return
        told_at[error] = now
        for old in [each for each, at in told_at.items() if now - at >= TOLD_AGAIN_SECONDS]:
            del told_at[old]
        log.warning(
            "not ready; trying again",
            what=what,
            error=error,
            attempts=state.attempt_number,
            seconds=round(now - begun_at, 1),
        )

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=0.1, max=LONGEST_WAIT_SECONDS),
        before_sleep=tell,
    ):
        with attempt, _hushed(_TOO.get(what)):
            return await call()
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _hushed(library: str | None) -> Iterator[None]:
    """Have a library log nothing. At a start nobody else in the process uses it."""
    if library is None:
        yield
        return
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
