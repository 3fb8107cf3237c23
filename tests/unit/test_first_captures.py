"""Which chatbots have had their first capture: noted by captures, written behind their back."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
import structlog
from aiokafka.errors import KafkaError, ProducerFenced, TransactionalIdAuthorizationFailed
from msgspec.structs import replace
from starlette.applications import Starlette

from gateway.app import CAPTURE, make_app
from gateway.capture import Bounds, CaptureEndpoint
from gateway.errors import unavailable
from gateway.limits import OFF, RateLimits
from gateway.metrics import GatewayMetrics
from gateway.publisher import Published, Publisher
from gateway.registry import Registry
from gateway.replies import Expected
from openbat import first_captures
from openbat.chatbots import archived
from openbat.connection import Connection, UnreachableError
from openbat.first_captures import FirstCaptures, entries_of
from schemas import sizes
from schemas.chatbots import Chatbot, chatbot_codec
from schemas.records import CaptureResult
from tests.unit.test_gateway import KEY, chatbot, entry

FIRST, LATER = 1_735_689_600_123_456, 1_735_689_700_000_000
FIRST_AT = datetime(2025, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
ONE, TWO = chatbot(1), chatbot(2, "secret of another")
BODY = {"conversationId": "c", "messages": [{"id": "m", "role": "user", "content": "Hello"}]}


def registry_of(*chatbots: Chatbot) -> Registry:
    registry = Registry()
    for each in chatbots:
        registry.apply(*entry(each))
    return registry


class Log:
    """The registry's topic, and the gateway that follows it.

    Attributes:
        written: what the topic holds.
        followed: what this gateway has read of it.
        follows: whether it reads what is written now.
        edits: the entries of each edit that was done.
        failing: raised by as many edits, the first ones.
        hangs: whether an edit never ends.

    """

    def __init__(self, *chatbots: Chatbot) -> None:
        self.written = registry_of(*chatbots)
        self.followed = registry_of(*chatbots)
        self.follows = True
        self.edits: list[list[tuple[bytes, bytes]]] = []
        self.failing: list[Exception] = []
        self.tried = 0
        self.hangs = False
        self.edited = asyncio.Event()

    async def edit(self, _: Connection, change: Callable[[Registry], Any]) -> None:
        self.tried += 1
        await asyncio.sleep(0)
        if self.failing:
            raise self.failing.pop(0)
        if self.hangs:
            await asyncio.Event().wait()
        entries = change(self.written)
        self.edits.append(entries)
        for key, value in entries:
            self.written.apply(key, value)
            if self.follows:
                self.followed.apply(key, value)
        self.edited.set()

    def first_of(self, chatbot_id: str) -> datetime | None:
        found = self.written.chatbot(UUID(chatbot_id).bytes)
        assert found is not None
        return found.first_capture_at


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log(ONE, TWO)
    monkeypatch.setattr(first_captures, "edit_registry", made.edit)
    return made


@pytest.fixture
def noted(log: Log) -> FirstCaptures:
    return FirstCaptures(Connection("nowhere"), log.followed, asyncio.Lock())


@contextlib.contextmanager
def quick(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.001) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(first_captures, "GATHER_SECONDS", seconds)
        patch.setattr(first_captures, "LONGEST_WAIT_SECONDS", 4 * seconds)
        yield


def test_an_entry_has_all_that_the_registry_holds_and_the_time() -> None:
    ((key, value),) = entries_of(registry_of(archived(ONE), TWO), {ONE.id: FIRST})
    assert key == UUID(ONE.id).bytes
    assert value is not None
    assert chatbot_codec.decode(value) == replace(archived(ONE), first_capture_at=FIRST_AT)


def test_what_another_gateway_wrote_or_nobody_knows_gets_no_entry() -> None:
    known = replace(ONE, first_capture_at=FIRST_AT)
    gone = str(UUID(int=99))
    assert entries_of(registry_of(known), {ONE.id: LATER, gone: LATER}) == []


async def test_all_that_has_gathered_is_one_edit(noted: FirstCaptures, log: Log) -> None:
    for received_at in (FIRST, LATER):
        noted.note(ONE.id, received_at)
    noted.note(TWO.id, LATER)
    await noted.write()
    assert [len(entries) for entries in log.edits] == [2]
    assert log.first_of(ONE.id) == FIRST_AT
    assert noted.noted == {}
    await noted.write()
    assert log.tried == 1


async def test_an_edit_is_bounded_and_the_rest_comes_next(
    noted: FirstCaptures, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_captures, "MAX_AT_ONCE", 1)
    noted.note(ONE.id, FIRST)
    noted.note(TWO.id, FIRST)
    await noted.write()
    assert noted.noted == {TWO.id: FIRST}
    await noted.write()
    assert [len(entries) for entries in log.edits] == [1, 1]


async def test_what_another_gateway_has_just_written_stays(noted: FirstCaptures, log: Log) -> None:
    """It is in the log, and this gateway has not read it yet."""
    noted.note(ONE.id, LATER)
    log.written.apply(*entry(replace(ONE, name="shop", first_capture_at=FIRST_AT)))
    await noted.write()
    assert log.edits == [[]]
    assert log.first_of(ONE.id) == FIRST_AT


async def test_what_the_registry_shows_by_now_is_not_written(
    noted: FirstCaptures, log: Log
) -> None:
    noted.note(ONE.id, FIRST)
    noted.note(TWO.id, FIRST)
    log.followed.apply(*entry(replace(ONE, first_capture_at=FIRST_AT)))
    log.followed.apply(UUID(TWO.id).bytes, None)
    await noted.write()
    assert (log.tried, noted.noted) == (0, {})


async def test_a_time_that_an_older_release_lost_is_written_again(
    noted: FirstCaptures, log: Log
) -> None:
    noted.note(ONE.id, FIRST)
    await noted.write()
    for registry in (log.written, log.followed):
        registry.apply(*entry(ONE))
    noted.note(ONE.id, LATER)
    await noted.write()
    assert log.first_of(ONE.id) == datetime(2025, 1, 1, 0, 1, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    "error",
    [
        ProducerFenced(),
        TransactionalIdAuthorizationFailed("openbat-registry"),
        UnreachableError("away"),
        TimeoutError(),
        OSError("broken"),
    ],
    ids=repr,
)
async def test_what_can_not_be_written_is_kept_and_tried_again(
    noted: FirstCaptures, log: Log, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    log.failing = [error] * 3
    with quick(monkeypatch), structlog.testing.capture_logs() as logged:
        noted.start()
        noted.note(ONE.id, FIRST)
        while log.tried < 3:
            assert noted.noted == {ONE.id: FIRST}
            await asyncio.sleep(0.001)
        noted.note(TWO.id, FIRST)
        await asyncio.wait_for(log.edited.wait(), 10)
        await noted.close()
    assert [len(entries) for entries in log.edits] == [2]
    (warning,) = logged
    assert (warning["log_level"], warning["chatbots"]) == ("warning", 1)


async def test_waits_grow_while_it_fails(
    noted: FirstCaptures, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def sleeping(seconds: float) -> None:
        if seconds:
            waits.append(seconds)
        await sleep(0)

    log.failing = [KafkaError()] * 12
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    monkeypatch.setattr(asyncio, "sleep", sleeping)
    noted.start()
    noted.note(ONE.id, FIRST)
    await asyncio.wait_for(log.edited.wait(), 10)
    log.edited.clear()
    noted.note(TWO.id, FIRST)
    await asyncio.wait_for(log.edited.wait(), 10)
    await noted.close()
    gather, longest = first_captures.GATHER_SECONDS, first_captures.LONGEST_WAIT_SECONDS
    assert waits[:3] == [gather, 2 * gather, 4 * gather]
    assert waits[12:] == [longest, gather]
    assert waits == [*sorted(waits[:13]), gather]


async def test_a_write_that_hangs_is_given_up(
    noted: FirstCaptures, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_captures, "WRITE_SECONDS", 0.01)
    log.hangs = True
    noted.note(ONE.id, FIRST)
    with pytest.raises(TimeoutError):
        await noted.write()
    assert noted.noted == {ONE.id: FIRST}


async def test_a_write_waits_for_the_admin_apis(log: Log) -> None:
    writing = asyncio.Lock()
    noted = FirstCaptures(Connection("nowhere"), log.followed, writing)
    noted.note(ONE.id, FIRST)
    async with writing:
        waiting = asyncio.create_task(noted.write())
        for _ in range(10):
            await asyncio.sleep(0)
        assert log.tried == 0
    await waiting
    assert log.tried == 1


async def test_the_end_waits_for_no_client(
    noted: FirstCaptures, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose brokers are away: it says goodbye to them, however often it is cancelled."""
    cancelled = 0

    async def stubborn(*_: object) -> None:
        nonlocal cancelled
        log.edited.set()
        while cancelled < 20:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1

    monkeypatch.setattr(first_captures, "edit_registry", stubborn)
    monkeypatch.setattr(first_captures, "CLOSE_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    with quick(monkeypatch):
        noted.start()
        noted.note(ONE.id, FIRST)
        await asyncio.wait_for(log.edited.wait(), 10)
        begun = loop.time()
        await noted.close()
        assert loop.time() - begun < 1
        assert 0 < cancelled < 20
        cancelled = 20
        await noted.close()


async def test_the_end_comes_at_once_where_nothing_is_written(noted: FirstCaptures) -> None:
    await noted.close()
    noted.start()
    noted.note(ONE.id, FIRST)
    await asyncio.wait_for(noted.close(), 0.5)


class Publishing:
    """In place of the publisher and the worker: what becomes of each capture is up to the test."""

    def __init__(self) -> None:
        self.results: list[CaptureResult] | None = None
        self.error: Exception | None = None

    def publish(self, _conversation_id: bytes, _frame: bytes) -> tuple[Published[Expected], int]:
        published: Published[Expected] = Published(asyncio.get_running_loop())
        if self.error is not None:
            published.soon.set_exception(self.error)
        else:
            published.soon.set_result(self.results)
            published.acknowledged.set_result(None)
        return published, 0


class Gateway:
    """A gateway that tells the test which first captures it notes."""

    def __init__(self) -> None:
        self.registry = registry_of(ONE)
        self.publishing = Publishing()
        self.noted: list[tuple[str, int]] = []
        metrics = GatewayMetrics()
        endpoint = CaptureEndpoint(
            self.registry,
            RateLimits("async+memory://", OFF),
            cast("Publisher[Expected]", self.publishing),
            Bounds(sizes.DEFAULT_BODY, 30),
            metrics,
            note_first=lambda chatbot_id, at: self.noted.append((chatbot_id, at)),
        )

        async def unready() -> list[str]:
            return []

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield

        app = make_app(endpoint.post, unready, lifespan, "1", metrics)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    async def status(self, body: Any = BODY, **headers: str) -> int:
        headers = {"Authorization": f"Bearer {KEY}", **headers}
        return (await self.client.post(CAPTURE, json=body, headers=headers)).status_code


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    async with made.client:
        yield made


@pytest.mark.parametrize("results", [None, [CaptureResult(1)], [CaptureResult(0)]])
@pytest.mark.parametrize("prefer", ["respond-async", "return=minimal"])
async def test_a_durable_capture_is_noted_until_the_registry_shows_one(
    gateway: Gateway, results: list[CaptureResult] | None, prefer: str
) -> None:
    gateway.publishing.results = results
    begun = datetime.now(UTC).timestamp()
    assert await gateway.status(Prefer=prefer) == 200
    ((chatbot_id, received_at),) = gateway.noted
    assert chatbot_id == ONE.id
    assert begun - 1 < received_at / 1_000_000 < datetime.now(UTC).timestamp() + 1
    gateway.registry.apply(*entry(replace(ONE, first_capture_at=FIRST_AT)))
    assert await gateway.status() == 200
    assert len(gateway.noted) == 1


async def test_a_capture_that_is_not_durable_is_not_noted(gateway: Gateway) -> None:
    assert await gateway.status({}) == 400
    assert await gateway.status(Authorization="Bearer secret") == 401
    gateway.publishing.error = unavailable("not_confirmed", "Send it again.")
    assert await gateway.status() == 503
    gateway.registry.apply(*entry(archived(ONE)))
    assert await gateway.status() == 403
    assert gateway.noted == []


@pytest.mark.parametrize("first_capture_at", [None, FIRST_AT])
@pytest.mark.parametrize(
    ("made", "shown"), [(ONE, {None: "pending", FIRST_AT: "active"}), (archived(ONE), {})]
)
def test_the_shown_state(
    made: Chatbot, shown: dict[datetime | None, str], first_capture_at: datetime | None
) -> None:
    found = replace(made, first_capture_at=first_capture_at)
    assert found.shown_state == shown.get(first_capture_at, "archived")
