"""The analyzer: a batch of subjects in, requests to the endpoint out, and never one for nothing."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence

import structlog

from analysis.llm.budget import Budget, Usage
from analysis.llm.calls import Call, calls_for
from analysis.llm.config import LlmConfig
from analysis.llm.endpoint import (
    MISCONFIGURED_SECONDS,
    Endpoint,
    RejectedError,
)
from analysis.llm.prompt import Prompt, fingerprint, prompt_for
from analysis.llm.reading import Readings, UnusableError, read
from analysis.protocol import (
    Answer,
    OverBudgetError,
    Subject,
    SubjectError,
    Turn,
    UnavailableError,
)
from schemas.analysis import KINDS, Kind

log = structlog.get_logger()

MAX_NAME_CHARACTERS = 64
ASKS_ALONE = 2
"""How often a subject is asked in a request of its own, before it is given up on."""

PROBE = Subject(b"", Turn("", "user", "Hello", 0), (), frozenset[Kind]({"sentiment"}))
"""What any endpoint takes that is configured right."""


class LlmAnalyzer:
    """Judges subjects by a language model. Each is asked once, as long as all goes well.

    Requests are shared by subjects of one chatbot alone. What a request has used is counted as the
    endpoint tells it, whether the answer was usable or not.

    Args:
        config: which endpoint and model, and how they are used.
        budget: asked before anything is sent, told after.
        clock: seconds since 1970.

    """

    kinds = frozenset(KINDS)
    paid = True

    def __init__(
        self, config: LlmConfig, budget: Budget, clock: Callable[[], float] = time.time
    ) -> None:
        self.name = f"llm:{config.model}"[:MAX_NAME_CHARACTERS]
        # The name may have lost the end of the model's.
        self.version = fingerprint(config.model, config.temperature)
        self.batch_size = config.batch_size
        self._config = config
        self._budget = budget
        self._clock = clock
        self._endpoint = Endpoint(config, clock)
        self._under_way: dict[bytes, Usage] = {}

    async def analyze(self, subjects: Sequence[Subject]) -> list[Answer]:
        """Return an answer for each subject, in their order.

        It is UnavailableError where the endpoint can't be reached, is over its limits, or takes no
        request as it is configured.
        """
        answers: dict[int, Answer] = {}
        calls = calls_for(subjects, self._config.subjects_per_call, isolate=self._config.isolate)
        await _all(self._judge(subjects, answers, call) for call in calls)
        return [answers[place] for place in range(len(subjects))]

    async def close(self) -> None:
        await self._endpoint.close()

    async def _judge(
        self,
        subjects: Sequence[Subject],
        answers: dict[int, Answer],
        call: Call,
        asks_left: int = ASKS_ALONE,
    ) -> None:
        """Answer the subjects at these places, each alone where it has to be."""
        prompt = prompt_for([subjects[place] for place in call])
        chatbot_id = subjects[call[0]].chatbot_id
        estimate = Usage(prompt.prompt_tokens, prompt.completion_tokens)
        if not self._reserve(chatbot_id, estimate):
            await self._judge_less(subjects, answers, call, asks_left)
            return
        try:
            readings = await self._ask(chatbot_id, prompt, estimate)
        except UnavailableError as error:
            answers.update(dict.fromkeys(call, error))
            return
        finally:
            self._release(chatbot_id, estimate)
        if len(call) == 1:
            asks_left -= 1
        unusable: list[Call] = []
        for place, reading in zip(call, readings.values(), strict=True):
            if not isinstance(reading, UnusableError):
                answers[place] = reading
                continue
            log.warning("an answer is not usable", reason=str(reading), asks_left=asks_left)
            if asks_left:
                unusable.append([place])
            else:
                answers[place] = SubjectError(str(reading))
        await _all(self._judge(subjects, answers, alone, asks_left) for alone in unusable)

    async def _judge_less(
        self, subjects: Sequence[Subject], answers: dict[int, Answer], call: Call, asks_left: int
    ) -> None:
        """Judge as many of the first as the budget has room for."""
        if len(call) == 1:
            answers[call[0]] = OverBudgetError("the chatbot's budget for today is spent")
            return
        half = len(call) // 2
        await self._judge(subjects, answers, call[:half], asks_left)
        await self._judge(subjects, answers, call[half:], asks_left)

    def _reserve(self, chatbot_id: bytes, estimate: Usage) -> bool:
        wanted = self._under_way.get(chatbot_id, Usage()).plus(estimate)
        if not self._budget.may_spend(chatbot_id, wanted, self._clock()):
            return False
        self._under_way[chatbot_id] = wanted
        return True

    def _release(self, chatbot_id: bytes, estimate: Usage) -> None:
        left = self._under_way.pop(chatbot_id).minus(estimate)
        if any(left):
            self._under_way[chatbot_id] = left

    async def _ask(self, chatbot_id: bytes, prompt: Prompt, estimate: Usage) -> Readings:
        try:
            reply = await self._endpoint.ask(prompt)
        except RejectedError as error:
            await self._find_out_whose_fault(chatbot_id)
            return dict.fromkeys(prompt.subjects, UnusableError(str(error)))
        await self._budget.spent(chatbot_id, reply.usage or estimate, self._clock())
        if reply.text is None:
            return dict.fromkeys(prompt.subjects, UnusableError("the model refuses"))
        return read(reply.text, prompt.subjects)

    async def _find_out_whose_fault(self, chatbot_id: bytes) -> None:
        """Return if a request was to blame for its rejection, not what they all have in common."""
        if self._endpoint.has_answered:
            return
        probe = prompt_for([PROBE])
        try:
            reply = await self._endpoint.ask(probe)
        except RejectedError as error:
            raise UnavailableError(
                f"{error}, to every request as it is configured", MISCONFIGURED_SECONDS
            ) from None
        if reply.usage is not None:
            await self._budget.spent(chatbot_id, reply.usage, self._clock())


async def _all(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all of it, and only then raise the first error: what is under way is paid for."""
    for end in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end
