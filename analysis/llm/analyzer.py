"""The analyzer: a batch of subjects in, requests to the endpoint out, and never one for nothing."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

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
MAX_KEPT = 1_000
"""Answers of batches that could not be finished: a repeat is not paid for again."""

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
        self._kept: OrderedDict[Subject, Answer] = OrderedDict()

    async def analyze(self, subjects: Sequence[Subject]) -> list[Answer]:
        """Return an answer for each subject, in their order.

        Raises:
            UnavailableError: the endpoint can't be reached, is over its limits, or takes no request
                as it is configured. What was answered is kept for the repeat.

        """
        batch = _Batch(subjects, self._kept)
        calls = calls_for(
            [subjects[place] for place in batch.left],
            self._config.subjects_per_call,
            isolate=self._config.isolate,
        )
        places = [[batch.left[index] for index in call] for call in calls]
        try:
            await _all(self._judge(batch, call) for call in places)
        except Exception:
            self._keep(batch)
            raise
        for subject in subjects:
            self._kept.pop(subject, None)
        return [batch.answers[place] for place in range(len(subjects))]

    async def close(self) -> None:
        await self._endpoint.close()

    async def _judge(self, batch: "_Batch", call: Call, asks_left: int = ASKS_ALONE) -> None:
        """Answer the subjects at these places, each alone where it has to be."""
        prompt = prompt_for([batch.subjects[place] for place in call])
        chatbot_id = batch.subjects[call[0]].chatbot_id
        estimate = Usage(prompt.prompt_tokens, prompt.completion_tokens)
        if not self._reserve(chatbot_id, estimate):
            await self._judge_less(batch, call, asks_left)
            return
        try:
            readings = await self._ask(chatbot_id, prompt, estimate)
        finally:
            self._release(chatbot_id, estimate)
        if len(call) == 1:
            asks_left -= 1
        unusable: list[Call] = []
        for place, reading in zip(call, readings.values(), strict=True):
            if not isinstance(reading, UnusableError):
                batch.answers[place] = reading
                continue
            log.warning("an answer is not usable", reason=str(reading), asks_left=asks_left)
            if asks_left:
                unusable.append([place])
            else:
                batch.answers[place] = SubjectError(str(reading))
        await _all(self._judge(batch, alone, asks_left) for alone in unusable)

    async def _judge_less(self, batch: "_Batch", call: Call, asks_left: int) -> None:
        """Judge as many of the first as the budget has room for."""
        if len(call) == 1:
            batch.answers[call[0]] = OverBudgetError("the chatbot's budget for today is spent")
            return
        half = len(call) // 2
        await self._judge(batch, call[:half], asks_left)
        await self._judge(batch, call[half:], asks_left)

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

    def _keep(self, batch: "_Batch") -> None:
        for place, answer in batch.answers.items():
            if not isinstance(answer, OverBudgetError):
                self._kept[batch.subjects[place]] = answer
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


class _Batch:
    """What is asked, and what is known of it, both by place; `left` is what is not known yet."""

    def __init__(self, subjects: Sequence[Subject], kept: Mapping[Subject, Answer]) -> None:
        self.subjects = subjects
        self.answers = {
            place: kept[subject] for place, subject in enumerate(subjects) if subject in kept
        }
        self.left = [place for place in range(len(subjects)) if place not in self.answers]


async def _all(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all of it, and only then raise the first error: what is under way is paid for."""
    for end in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end
