"""`openbat worker analysis`: reads what is to be analysed, asks the analyzers, writes results."""

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine
from typing import Any

import uvloop
from aiokafka.errors import KafkaError
from faust.types import TP

from analysis import host
from analysis.llm import DailyBudget, DailyLimits, LlmConfig, Prices, Spending, Tally
from analysis.panel import Panel
from gateway import registry
from gateway.registry import Registry
from openbat import spending
from openbat.kafka import make_reader
from openbat.settings import Settings, SettingsError
from openbat.worker_role import GULPS_IN_FLIGHT, Parts, run_worker
from schemas import sizes, topics
from schemas.chatbots import ChatbotSettings
from streams.analysis import AnalysisAgent
from streams.app import WorkerApp, add_agent, exit_now
from streams.consumer import Positions
from streams.context import Quiet, replay_entry
from streams.lanes import Lanes, Received
from streams.table import WorkerTable
from streams.window import Windows

FORGOTTEN_SECONDS = 30 * 86_400.0
"""After how long without a message a conversation's context is forgotten: what comes later is
analysed as if it were its first."""
NUDGE_SECONDS = 1.0
"""How often a partition without records is looked at for conversations that went quiet."""
LATER_WAITS_SECONDS = 5.0
"""How long what was put off waits for what is fresh, at most."""
LATER_AT_ONCE = 2
"""Partitions: more of what was put off would stand in a model's queue, before what is fresh."""
NICENESS = 10
"""Analysis may never slow a capture down where they share a machine."""

GULP_BYTES = 512 * 1024
"""Of records that are analysed at once, some 5,000 messages. Of a larger gulp, what is over a
chatbot's share would be put off, though the analyzers are quick: that costs a third more."""

MICROSECONDS = 1_000_000


def run_analysis(settings: Settings) -> None:
    os.nice(NICENESS)
    uvloop.run(run_worker("analysis", topics.ANALYSIS_GROUP, settings, _analysis))


def llm_config(settings: Settings) -> LlmConfig | None:
    """Return the endpoint that the settings name, None where they name none.

    Raises:
        SettingsError: the URL holds a password.

    """
    if settings.llm_url is None or settings.llm_model is None:
        return None
    try:
        return LlmConfig(
            url=settings.llm_url,
            model=settings.llm_model,
            api_key=settings.llm_api_key or "",
            concurrency=settings.llm_concurrency,
            timeout_seconds=settings.llm_timeout_seconds,
            isolate=settings.llm_isolate,
            prices=Prices(settings.llm_prompt_price, settings.llm_completion_price),
        )
    except ValueError as error:
        raise SettingsError(f"OPENBAT_LLM_URL: {error}") from None


async def _analysis(parts: Parts) -> None:
    app, settings = parts.app, parts.settings
    parts.health.starting = "The registry, and what was spent, are not read yet."
    chatbots = Chatbots()
    spent = Spending(parts.identity)
    readers = [make_reader(parts.connection, "read_committed") for _ in range(2)]
    for reader in readers:
        await reader.start()
    await registry.read_to_end(readers[0], chatbots.registry)
    await spending.read_to_end(readers[1], spent)
    following = [
        app.add_future(_or_exit(registry.follow(readers[0], chatbots.registry))),
        app.add_future(_or_exit(spending.follow(readers[1], spent))),
    ]
    panel = _panel(parts, chatbots, spent)
    await panel.warm_up()
    table = WorkerTable(
        app,
        exit_now,
        settings.table_cache_mebibytes * sizes.MIB,
        replay_entry,
        name=topics.CONTEXTS_TABLE,
        partitions=app.conf.topic_partitions,
        beacon=app.tables.beacon,
    )
    app.tables.add(table)
    windows = Windows(GULPS_IN_FLIGHT, exit_now)
    agent = AnalysisAgent(
        table,
        parts.producer,
        parts.dead_letters,
        windows,
        panel,
        chatbots.settings_of,
        Quiet(int(settings.quiet_seconds * MICROSECONDS), int(FORGOTTEN_SECONDS * MICROSECONDS)),
        lambda: time.time_ns() // 1000,
    )
    fresh = Lanes(agent.process, exit_now, PartitionFlow(app, topics.ANALYSIS), GULP_BYTES)
    nudger = Nudger(app, fresh)

    async def put_fresh(partition: int, record: Received) -> None:
        nudger.took(partition, record.offset)
        await fresh.put(partition, record)

    later_at_once = asyncio.Semaphore(LATER_AT_ONCE)

    async def process_later(partition: int, records: list[Received]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LATER_WAITS_SECONDS):
                while fresh.waiting and not panel.hurries:  # noqa: ASYNC110 - of many queues
                    await asyncio.sleep(0.01)
        async with later_at_once:
            await agent.process_later(partition, records)

    later = Lanes(process_later, exit_now, PartitionFlow(app, topics.ANALYSIS_LATER), GULP_BYTES)
    add_agent(app, topics.ANALYSIS, put_fresh)
    add_agent(app, topics.ANALYSIS_LATER, later.put)
    app.add_future(_or_exit(nudger.run()))

    async def settled() -> None:
        # Quiet conversations are judged without a record that waits for its ack.
        await fresh.drained()
        await later.drained()
        await windows.drained()

    async def drained() -> None:
        nudger.start_over()
        panel.hurry()
        await settled()
        await windows.close()
        await panel.close()
        for each in following:
            each.cancel()
        for reader in readers:
            await reader.stop()

    app.settled, app.drained = settled, drained
    app.on_giving_up.append(panel.hurry)
    app.on_given_up += [table.forget_positions, agent.start_over, nudger.start_over, panel.go_on]


class Chatbots:
    """Chatbots' settings, as the registry has them now."""

    def __init__(self) -> None:
        self.registry = Registry()

    def settings_of(self, chatbot_id: bytes) -> ChatbotSettings:
        """Return a chatbot's settings, the default ones of one that is not known."""
        chatbot = self.registry.chatbot(chatbot_id)
        return chatbot.settings if chatbot else _DEFAULTS

    def limits_of(self, chatbot_id: bytes) -> DailyLimits:
        """Return what may be spent on a chatbot: nothing where its limits can't be read."""
        if chatbot_id in self.registry.unreadable:
            return DailyLimits(tokens=0, cost=0)
        settings = self.settings_of(chatbot_id)
        return DailyLimits(settings.tokens_per_day, settings.cost_per_day)


class PartitionFlow:
    """Stops and goes on fetching from a topic's partition, as Faust does where a buffer is full."""

    def __init__(self, app: WorkerApp, topic: str) -> None:
        self._app = app
        self._topic = topic

    def stop(self, partition: int) -> None:
        self._app.consumer.on_buffer_full(TP(self._topic, partition))

    def go_on(self, partition: int) -> None:
        self._app.consumer.on_buffer_drop(TP(self._topic, partition))


class Nudger:
    """Has partitions looked at where no record comes, as long as this worker owns them.

    Only where all that there is was read: a backlog is no silence.
    """

    def __init__(self, app: WorkerApp, lanes: Lanes) -> None:
        self._app = app
        self._lanes = lanes
        self._next: dict[int, int] = {}
        app.on_seek.append(self._start)

    def _start(self, positions: Positions) -> None:
        self._next = {
            tp.partition: offset for tp, offset in positions.items() if tp.topic == topics.ANALYSIS
        }

    def start_over(self) -> None:
        self._next = {}

    def took(self, partition: int, offset: int) -> None:
        """Take in that a record was read."""
        self._next[partition] = offset + 1

    async def run(self) -> None:
        """Nudge for ever."""
        while True:
            await asyncio.sleep(NUDGE_SECONDS)
            if self._app.tables.actives_ready:
                for partition, offset in self._next.items():
                    end = self._app.consumer.highwater(TP(topics.ANALYSIS, partition))
                    if end is not None and offset >= end:
                        self._lanes.nudge(partition)


def _panel(parts: Parts, chatbots: Chatbots, spent: Spending) -> Panel:
    settings = parts.settings
    config = llm_config(settings)

    async def publish(tally: Tally) -> None:
        try:
            await spending.publish(parts.producer, tally)
        except KafkaError as error:
            exit_now(error)

    prices = config.prices if config else Prices()
    budget = DailyBudget(spent, chatbots.limits_of, prices, publish)
    handed = host.Host(budget, config)
    try:
        analyzers = host.make([name.strip() for name in settings.analyzers.split(",")], handed)
        fallback = settings.analysis_fallback
        stand_in = host.make([fallback], handed)[0] if fallback else None
    except host.AnalyzerSetupError as error:
        raise SettingsError(str(error)) from error
    return Panel(analyzers, stand_in, parts.metrics.analysed)


async def _or_exit(work: Coroutine[Any, Any, None]) -> None:
    """Do what may never end, and end the process where it does."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - Faust would only log it
        exit_now(error)


_DEFAULTS = ChatbotSettings()
