"""The endpoint: one request, tried again where its fault may pass. Alone imports OpenAI's client.

No error from here holds the client's: its request has the key, and an endpoint's own words about a
refused key may repeat it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
import openai
import structlog
from openai import AsyncOpenAI
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from analysis.llm.breaker import Breaker
from analysis.llm.config import LlmConfig
from analysis.llm.prompt import Prompt
from analysis.llm.reply import Reply, reply_of
from analysis.llm.retry_after import retry_after_seconds
from analysis.protocol import UnavailableError

log = structlog.get_logger()

BREAKER_FAILURES = 5
OPEN_SECONDS = 30.0
MAX_BACKOFF_SECONDS = 10.0
MAX_WAIT_SECONDS = 20.0
"""What Retry-After asks over it is not waited for here: the caller is told."""
MISCONFIGURED_SECONDS = 60.0
"""Until a key, model or URL that the endpoint does not take is tried again."""

FORMATS = ("json_schema", "json_object", "text")
"""What an answer may be held to, the strictest first; not every endpoint knows each."""


class RejectedError(Exception):
    """Raised where the endpoint does not take the request itself, which a repeat won't mend."""


class _PassingError(Exception):
    """A fault that may be over at the next attempt."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_soon_over(self) -> bool:
        return (self.retry_after_seconds or 0.0) <= MAX_WAIT_SECONDS


class Endpoint:
    """Sends prompts, so many at once.

    Args:
        config: which endpoint, and how it is used.
        clock: seconds since 1970; for Retry-After's dates.
        monotonic: seconds of a clock that only goes forward.

    Attributes:
        has_answered: whether it has ever taken a request, so that what it is told here fits it.

    """

    def __init__(
        self,
        config: LlmConfig,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.has_answered = False
        self._config = config
        self._clock = clock
        self._monotonic = monotonic
        self._client = AsyncOpenAI(
            api_key=config.api_key or "none",
            base_url=config.url,
            max_retries=0,
            # The client's own time-out is for each read: an answer that trickles would never end.
            timeout=None,
        )
        self._breaker = Breaker(BREAKER_FAILURES, OPEN_SECONDS)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._format = 0
        self._backoff = wait_random_exponential(config.backoff_seconds, MAX_BACKOFF_SECONDS)

    async def ask(self, prompt: Prompt) -> Reply:
        """Send a prompt, and return what the model says.

        Raises:
            UnavailableError: its breaker is open, the attempts are used up, or it takes no request
                at all as it is configured.
            RejectedError: it does not take this request.

        """
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._config.attempts),
            wait=self._wait_seconds,
            retry=retry_if_exception(lambda e: isinstance(e, _PassingError) and e.is_soon_over),
            reraise=True,
        )
        try:
            return await attempts(self._attempt, prompt)
        except _PassingError as error:
            seconds = error.retry_after_seconds
            raise UnavailableError(
                str(error), MAX_BACKOFF_SECONDS if seconds is None else seconds
            ) from None

    async def close(self) -> None:
        await self._client.close()

    def _wait_seconds(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, _PassingError) else None
        # Jitter on top of what was asked: else all who were refused come back at once.
        return (asked or 0.0) + self._backoff(state)

    async def _attempt(self, prompt: Prompt) -> Reply:
        async with self._slots:
            while True:
                wait_seconds = self._breaker.admit(self._monotonic())
                if wait_seconds:
                    raise UnavailableError("the endpoint is left alone for a while", wait_seconds)
                rung = self._format
                answer = await self._send(prompt, FORMATS[rung])
                if isinstance(answer, Reply):
                    self._breaker.succeeded(self._monotonic())
                    self.has_answered = True
                    return answer
                if not (isinstance(answer, _FormatError) and rung + 1 < len(FORMATS)):
                    raise answer
                # Of several requests under way, each steps down from the rung that it was on.
                self._format = max(self._format, rung + 1)
                log.warning("the endpoint does not know a format", format=FORMATS[rung])

    async def _send(self, prompt: Prompt, form: str) -> Reply | Exception:
        """Return the answer, or what is to be raised, free of the client's errors."""
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                response = await self._client.chat.completions.with_raw_response.create(
                    model=self._config.model,
                    messages=[
                        {"role": "system", "content": prompt.system},
                        {"role": "user", "content": prompt.user},
                    ],
                    max_completion_tokens=self._config.max_completion_tokens,
                    extra_body=self._extra(prompt, form),
                )
            return reply_of(response.content)
        except openai.APIStatusError as error:
            return self._refused(error.status_code, error.response.headers, _says(error))
        except (openai.APIConnectionError, TimeoutError, msgspec.DecodeError) as error:
            self._breaker.failed(self._monotonic())
            return _PassingError(f"no chat completion from the endpoint: {type(error).__name__}")

    def _extra(self, prompt: Prompt, form: str) -> dict[str, object]:
        extra: dict[str, object] = {}
        if self._config.temperature is not None:
            extra["temperature"] = self._config.temperature
        if form == "json_schema":
            named = {"name": "judgements", "strict": True, "schema": prompt.schema}
            extra["response_format"] = {"type": form, form: named}
        elif form == "json_object":
            extra["response_format"] = {"type": form}
        return extra

    def _refused(self, status: int, headers: Mapping[str, str], says: str) -> Exception:
        now = self._monotonic()
        asked = retry_after_seconds(headers.get("retry-after"), self._clock())
        message = f"the endpoint answers {status}"
        if status >= 500 or status in (408, 409, 429):
            # A 429 is no sign that the endpoint is down, but it says how long to leave it alone.
            if status != 429:
                self._breaker.failed(now)
            fault = _PassingError(message, asked)
            if not fault.is_soon_over:
                self._breaker.hold(now, asked or 0.0)
            return fault
        if status in (401, 402, 403, 404):
            self._breaker.hold(now, MISCONFIGURED_SECONDS)
            return UnavailableError(f"{message}: key, model or URL", MISCONFIGURED_SECONDS)
        self._breaker.succeeded(now)
        return _FormatError(message) if "response_format" in says else RejectedError(message)


class _FormatError(RejectedError):
    """It does not know the format that the answer is to be held to."""


def _says(error: openai.APIStatusError) -> str:
    return f"{error.param} {error.message}"
