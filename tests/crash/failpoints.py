"""Named moments, right before and after each durable step, at which a process dies or is paused.

The project's code knows nothing of them: a role that is started with this folder's `inject` on its
PYTHONPATH is wrapped at the calls that make something durable. A moment that was armed (a file of
its name) is taken by the first process that reaches it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Action = Literal["kill", "stop"]

DIRECTORY = "OPENBAT_TEST_FAILPOINTS"
SABOTAGE = "OPENBAT_TEST_SABOTAGE"
ACK_FIRST = "ack-before-outputs"
"""The safeguard that the matrix is tried without: nothing is acked before its outputs."""

_OUTPUTS = ("replies", "changelog", "messages", "analysis")
_SENT = ("before", "sent", "acknowledged")
_AROUND = ("before", "after")

GATEWAY = tuple(f"gateway.captures.{at}" for at in _SENT)
CONVERSATIONS = (
    *(f"conversations.{output}.{at}" for output in _OUTPUTS for at in _SENT),
    *(f"conversations.{step}.{at}" for step in ("store", "ack", "commit") for at in _AROUND),
)
CLICKHOUSE = tuple(
    f"clickhouse.{step}.{at}"
    for step in ("message_rows", "conversation_rows", "ack", "commit")
    for at in _AROUND
)
ANALYSIS = (
    *(f"analysis.{output}.{at}" for output in ("changelog", "analyses", "analysis-later")
      for at in _SENT),
    *(f"analysis.{step}.{at}" for step in ("store", "ack", "commit") for at in _AROUND),
)  # fmt: skip
"""Of the analysis worker, whose results answer nobody: it has a campaign of its own."""
REBALANCE = tuple(f"conversations.assigned.{at}" for at in _AROUND)
RECOVERY = tuple(f"conversations.recovery.{at}" for at in _AROUND)
MOMENTS = (*GATEWAY, *CONVERSATIONS, *CLICKHOUSE, *REBALANCE, *RECOVERY)
REPLAY = tuple(f"replay.{topic}.{at}" for topic in ("captures", "dead-letters") for at in _SENT)
"""Of `openbat dead-letters replay`, which is no role of a stack."""


def environment(directory: Path, sabotage: str = "") -> dict[str, str]:
    """Return what a stack needs in its environment for its roles to have failpoints."""
    directory.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    return {
        "PYTHONPATH": os.pathsep.join([str(here / "inject"), str(here.parents[1])]),
        DIRECTORY: str(directory),
        SABOTAGE: sabotage,
    }


def arm(directory: Path, moment: str, action: Action = "kill") -> None:
    assert moment in (*MOMENTS, *REPLAY, *ANALYSIS), moment
    (directory / moment).write_text(action)


def disarm(directory: Path, moment: str) -> bool:
    """Return whether it was still armed: nobody got there."""
    try:
        (directory / moment).unlink()
    except FileNotFoundError:
        return False
    return True


def taken_by(directory: Path, moment: str) -> int | None:
    """Return the process that took the moment last, None while it is armed or never was."""
    if (directory / moment).exists():
        return None
    pids = list(directory.glob(f"{moment}.pid-*"))
    newest = max(pids, key=lambda path: path.stat().st_mtime_ns, default=None)
    return None if newest is None else int(newest.name.rpartition("-")[2])


def install() -> None:
    """Wrap the calls of this process's role, where failpoints are asked for."""
    directory = os.environ.get(DIRECTORY)
    role = next((role for role in _ROLES if role in sys.orig_argv), None)
    if directory and role and "openbat" in sys.orig_argv:
        _ROLES[role](_Moments(Path(directory), role))


class _Moments:
    """The moments of this process's role."""

    def __init__(self, directory: Path, role: str) -> None:
        self._directory = directory
        self._role = role

    def reach(self, step: str, at: str) -> None:
        """Die or pause here, where this moment is armed and nobody else has taken it."""
        armed = self._directory / f"{self._role}.{step}.{at}"
        if not armed.exists():
            return
        taken = armed.with_name(f"{armed.name}.pid-{os.getpid()}")
        try:
            armed.rename(taken)
        except FileNotFoundError:
            return
        stop = taken.read_text() == "stop"
        taken.touch()
        os.kill(os.getpid(), signal.SIGSTOP if stop else signal.SIGKILL)

    def around(self, owner: type, name: str, step: Callable[..., str | None]) -> None:
        """Wrap a method, coroutine or not; `step` names it by its arguments, or leaves it out."""
        original = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            named = step(*args, **kwargs)
            if named is None:
                return original(*args, **kwargs)
            self.reach(named, "before")
            done = original(*args, **kwargs)
            self.reach(named, "after")
            return done

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            named = step(*args, **kwargs)
            if named is None:
                return await original(*args, **kwargs)
            self.reach(named, "before")
            done = await original(*args, **kwargs)
            self.reach(named, "after")
            return done

        setattr(owner, name, coroutine if asyncio.iscoroutinefunction(original) else method)

    def sends(self, owner: type, name: str, topic_at: int) -> None:
        """Wrap a producer's method that returns a future of the broker's acknowledgement."""
        original = getattr(owner, name)

        async def send(*args: Any, **kwargs: Any) -> Any:
            topic = args[topic_at]
            step = "changelog" if topic.endswith("-changelog") else topic

            def done(future: asyncio.Future[Any]) -> None:
                if future.exception() is None:
                    self.reach(step, "acknowledged")

            self.reach(step, "before")
            acknowledged = await original(*args, **kwargs)
            acknowledged.add_done_callback(done)
            self.reach(step, "sent")
            return acknowledged

        setattr(owner, name, send)


def _producing(moments: _Moments) -> None:
    from aiokafka import AIOKafkaProducer

    moments.sends(AIOKafkaProducer, "send", 1)


def _worker(moments: _Moments) -> None:
    from aiokafka import AIOKafkaConsumer
    from faust.events import Event

    moments.around(AIOKafkaConsumer, "commit", lambda *_, **__: "commit")
    moments.around(Event, "ack", lambda *_: "ack")


def _conversations(moments: _Moments) -> None:
    from aiokafka import AIOKafkaProducer

    from streams.app import WorkerApp
    from streams.store import TableStore

    _worker(moments)
    moments.sends(AIOKafkaProducer, "send", 1)
    moments.sends(AIOKafkaProducer, "send_batch", 2)
    moments.around(TableStore, "write", lambda *_: "store")
    moments.around(TableStore, "apply_changelog_batch", lambda *_, **__: "recovery")
    moments.around(WorkerApp, "_on_partitions_assigned", lambda *_: "assigned")
    if os.environ.get(SABOTAGE) == ACK_FIRST:
        _ack_first()


def _analysis(moments: _Moments) -> None:
    from aiokafka import AIOKafkaProducer

    from streams.store import TableStore

    _worker(moments)
    moments.sends(AIOKafkaProducer, "send", 1)
    moments.sends(AIOKafkaProducer, "send_batch", 2)
    moments.around(TableStore, "write", lambda *_: "store")


def _clickhouse(moments: _Moments) -> None:
    from clickhouse_connect.driver.httpclient import HttpClient

    _worker(moments)
    moments.around(HttpClient, "raw_insert", lambda _, table, *__: table.rpartition(".")[2])


def _ack_first() -> None:
    """Ack records before anything of them is sent, and give Faust the time to commit that."""
    from streams.conversations import ConversationsAgent

    process = ConversationsAgent.process

    async def sabotaged(self: ConversationsAgent, partition: int, records: list[Any]) -> None:
        for record in records:
            record.ack()
        await asyncio.sleep(2)
        await process(self, partition, records)

    ConversationsAgent.process = sabotaged  # type: ignore[method-assign]


_ROLES: dict[str, Callable[[_Moments], None]] = {
    "gateway": _producing,
    "replay": _producing,
    "conversations": _conversations,
    "clickhouse": _clickhouse,
    "analysis": _analysis,
}
