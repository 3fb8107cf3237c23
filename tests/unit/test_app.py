"""What stands between Faust and the agents, with a Faust that only hands events on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from faust.tables.recovery import RebalanceAgain
from faust.types import TP

from streams import app as app_module
from streams.app import WorkerApp, add_agent, make_app
from streams.continuity import RecordsLostError
from streams.lanes import Received


class Event(NamedTuple):
    """The part of a Faust event that is used."""

    offset: int
    value: bytes | None
    ack: Callable[[], None] = lambda: None

    @property
    def message(self) -> Any:
        return SimpleNamespace(partition=3, offset=self.offset, headers=None)


class FakeStream:
    """A stream that must be read without Faust acking anything by itself."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self._acking = True

    def noack(self) -> "FakeStream":
        self._acking = False
        return self

    async def events(self) -> AsyncIterator[Event]:
        assert not self._acking
        for event in self._events:
            yield event


class FakeApp:
    """Takes one agent, to be run over events."""

    def __init__(self) -> None:
        self.run: Callable[[Any], Awaitable[None]]
        self.on_seek: list[Callable[[dict[Any, int]], None]] = []

    def topic(self, name: str, **_options: Any) -> str:
        return name

    def agent(self, _source: str, name: str) -> Callable[[Any], None]:
        assert name

        def register(run: Callable[[Any], Awaitable[None]]) -> None:
            self.run = run

        return register


class Agent:
    """An agent of a fake app, what it processed, and what ended it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = FakeApp()
        self.processed: list[Received] = []
        self.ended_by: list[BaseException] = []
        self.failing: Exception | None = None
        monkeypatch.setattr(app_module, "exit_now", self.ended_by.append)
        add_agent(cast("WorkerApp", self.app), "captures", self._process)

    async def _process(self, partition: int, record: Received) -> None:
        assert partition == 3
        if self.failing is not None:
            raise self.failing
        self.processed.append(record)

    async def read(self, *events: Event) -> list[Received]:
        await self.app.run(FakeStream(list(events)))
        return self.processed


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    return Agent(monkeypatch)


async def test_records_are_handed_on_with_their_acks_and_none_is_acked_here(agent: Agent) -> None:
    acked: list[int] = []
    events = [Event(number, b"value", lambda: acked.append(1)) for number in range(2)]
    processed = await agent.read(*events)
    assert processed == [Received(event.offset, b"value", event.ack) for event in events]
    assert acked == []
    assert agent.ended_by == []


async def test_a_record_without_a_value_is_an_empty_one(agent: Agent) -> None:
    (record,) = await agent.read(Event(0, None))
    assert record.value == b""


async def test_a_hole_ends_the_worker_before_the_record_after_it(agent: Agent) -> None:
    processed = await agent.read(Event(0, b""), Event(2, b""))
    assert [record.offset for record in processed] == [0]
    (error,) = agent.ended_by
    assert isinstance(error, RecordsLostError)


async def test_a_hole_at_the_start_is_seen_too(agent: Agent) -> None:
    (seek,) = agent.app.on_seek
    seek({TP("captures", 3): 5, TP("messages", 3): 9})
    assert await agent.read(Event(6, b"")) == []
    assert len(agent.ended_by) == 1


async def test_whatever_fails_ends_the_worker_and_never_leaves_the_agent(agent: Agent) -> None:
    agent.failing = ArithmeticError("bug")
    await agent.read(Event(0, b""))
    assert agent.ended_by == [agent.failing]


class CrashedApp:
    """An app that crashes before its table is recovered."""

    tables = SimpleNamespace(actives_ready=False)
    unassigned = False
    crash_reason: BaseException | None = None

    async def start(self) -> None:
        self.crash_reason = ArithmeticError("in the recovery")


async def test_a_crash_before_the_worker_is_ready_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class EndedError(Exception):
        pass

    def end(error: BaseException) -> None:
        raise EndedError from error

    monkeypatch.setattr(app_module, "exit_now", end)
    app = cast("WorkerApp", CrashedApp())
    with pytest.raises(EndedError) as ended:
        await app_module.run(app, asyncio.Event(), lambda: None)
    assert isinstance(ended.value.__cause__, ArithmeticError)


async def test_a_recovery_begins_anew_where_it_does_not_know_an_offset(tmp_path: Path) -> None:
    recovery = make_app("group", "127.0.0.1:1", 2, tmp_path, "instance").tables.recovery
    known, unknown = TP("changelog", 0), TP("changelog", 1)
    sought = []

    class Consumer:
        async def seek_wait(self, offsets: dict[TP, int]) -> None:
            sought.append(offsets)

    offsets = {known: -1, unknown: None}
    with pytest.raises(RebalanceAgain):
        await recovery._seek_offsets(Consumer(), {known, unknown}, offsets, "standby")
    await recovery._seek_offsets(Consumer(), {known}, offsets, "standby")
    assert sought == [{known: 0}]
