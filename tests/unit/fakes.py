"""A producer without a broker: what is sent waits until the test has it acknowledged.

And an analyzer that says what the test wants it to.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from analysis.protocol import Finding, Subject
from schemas import sizes
from schemas.analysis import KINDS, Kind
from schemas.chatbots import ChatbotSettings

LONG_SECONDS = 600.0
"""Longer than any test takes: what a test must not run into."""

NO_SETTINGS = ChatbotSettings()


class Acknowledgement(NamedTuple):
    """The part of aiokafka's RecordMetadata that is used."""

    offset: int


class Sent(NamedTuple):
    """One record, or one batch of them, on its way."""

    topic: str
    partition: int
    value: bytes
    headers: dict[str, str]
    entries: list[tuple[bytes, bytes | None]]
    result: asyncio.Future[Acknowledgement]

    def acknowledge(self, offset: int = 0) -> None:
        self.result.set_result(Acknowledgement(offset))

    def refuse(self, error: BaseException) -> None:
        self.result.set_exception(error)


class FakeProducer:
    """Takes the part of an AIOKafkaProducer that the project calls.

    Attributes:
        sent: what was sent, in order, for the test to take out.
        acknowledging: when set, everything is acknowledged at once, at the next offset of its
            topic and partition.
        failing: raised by the next `send`.

    """

    def __init__(
        self, *, acknowledging: bool = False, batch_bytes: int = sizes.CHANGELOG_BATCH
    ) -> None:
        self.sent: asyncio.Queue[Sent] = asyncio.Queue()
        self.acknowledging = acknowledging
        self.failing: Exception | None = None
        self.stopped = asyncio.Event()
        self._batch_bytes = batch_bytes
        self._ends: dict[tuple[str, int], int] = {}

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        partition: int,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> asyncio.Future[Acknowledgement]:
        if self.failing is not None:
            raise self.failing
        readable = {name: text.decode() for name, text in headers or []}
        return self._take(topic, partition, value, readable, [(key or b"", value)])

    async def send_and_wait(
        self, topic: str, value: bytes, *, partition: int, key: bytes
    ) -> Acknowledgement:
        return await (await self.send(topic, value, partition=partition, key=key))

    def create_batch(self) -> Any:
        return BatchBuilder(self._batch_bytes, 0)

    async def send_batch(
        self, batch: Any, topic: str, *, partition: int
    ) -> asyncio.Future[Acknowledgement]:
        built = bytes(batch._build())
        entries = [(bytes(record.key), record.value) for record in DefaultRecordBatch(built)]
        return self._take(topic, partition, built, {}, entries)

    async def stop(self) -> None:
        self.stopped.set()

    def _take(
        self,
        topic: str,
        partition: int,
        value: bytes,
        headers: dict[str, str],
        entries: list[tuple[bytes, bytes | None]],
    ) -> asyncio.Future[Acknowledgement]:
        result = asyncio.get_running_loop().create_future()
        sent = Sent(topic, partition, value, headers, entries, result)
        if self.acknowledging:
            offset = self._ends.get((topic, partition), 0)
            self._ends[topic, partition] = offset + len(entries)
            sent.acknowledge(offset)
        self.sent.put_nowait(sent)
        return result

    def all_sent(self) -> list[Sent]:
        """Take out all that was sent so far."""
        return [self.sent.get_nowait() for _ in range(self.sent.qsize())]


class FakeConsumer:
    """Gives what it is given to read, one fetch after the other; then waits for ever."""

    def __init__(self, fetches: list[dict[Any, list[Any]]]) -> None:
        self._fetches = iter(fetches)
        self.at_end = asyncio.Event()

    async def getmany(self, timeout_ms: int) -> dict[Any, list[Any]]:
        assert timeout_ms
        for fetched in self._fetches:
            return fetched
        self.at_end.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class Failures:
    """Collects what `on_failure` is called with."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[BaseException] = asyncio.Queue()

    def __call__(self, error: BaseException) -> None:
        self.seen.put_nowait(error)

    async def unless(self, done: Coroutine[Any, Any, None]) -> None:
        """Wait for what is to be done; raise the first failure if it comes before."""
        doing = asyncio.create_task(done)
        failing = asyncio.create_task(self.seen.get())
        await asyncio.wait({doing, failing}, return_when=asyncio.FIRST_COMPLETED)
        doing.cancel()
        if failing.done():
            raise failing.result()
        failing.cancel()


_FINDINGS = {
    "sentiment": Finding("sentiment", "neutral", score=0.0),
    "intent": Finding("intent", "none"),
    "behaviour": Finding("behaviour", "helpful"),
    "resolution": Finding("resolution", "fully"),
}


def finding(kind: Kind) -> Finding:
    """Return a sound finding of a kind, whatever the vocabulary."""
    return _FINDINGS.get(kind, Finding(kind))


class FakeAnalyzer:
    """Answers each subject soundly, and some as the test wants.

    A conversation as a whole goes by the content of its newest message.

    Attributes:
        asked: the contents of each batch that it was asked about.
        subjects: those of all batches, one after the other.
        answers: by content: the answer, or what is raised where it is one of ArithmeticError's.
        raising: raised by as many calls, the first ones.
        going_on: where set, each call waits until the test lets it go on.
        under_way: how many calls there are now.
        closed: how often it was closed.

    """

    def __init__(
        self,
        name: str,
        *,
        kinds: frozenset[Kind] = frozenset(KINDS),
        paid: bool = False,
        batch_size: int = 10,
        answers: Mapping[str, Any] | None = None,
        raising: Sequence[Exception] = (),
    ) -> None:
        self.name, self.version = name, "1"
        self.kinds, self.paid, self.batch_size = kinds, paid, batch_size
        self.answers = dict(answers or {})
        self.raising = list(raising)
        self.asked: list[list[str]] = []
        self.subjects: list[Subject] = []
        self.going_on: asyncio.Semaphore | None = None
        self.under_way = 0
        self.closed = 0

    async def analyze(self, subjects: Sequence[Subject]) -> list[Any]:
        contents = [(each.message or each.before[-1]).content for each in subjects]
        self.asked.append(contents)
        self.subjects += subjects
        if self.going_on is not None:
            self.under_way += 1
            try:
                await self.going_on.acquire()
            finally:
                self.under_way -= 1
        if self.raising:
            raise self.raising.pop(0)
        return [self._answer(*each) for each in zip(subjects, contents, strict=True)]

    def _answer(self, subject: Subject, content: str) -> Any:
        if content not in self.answers:
            wanted = subject.kinds & self.kinds
            return tuple(finding(kind) for kind in KINDS if kind in wanted)
        answer = self.answers[content]
        if isinstance(answer, ArithmeticError):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed += 1


class FatalError(KafkaError):  # type: ignore[misc]
    """An error after which an idempotent producer can't go on."""


async def settled() -> None:
    """Return when all tasks that can go on now have gone on."""
    for _ in range(20):
        await asyncio.sleep(0)
