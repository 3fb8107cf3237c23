"""What an analysis worker is made of: analyzers found by name, settings, and its nudges."""

import asyncio
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from faust.types import TP
from rich.pretty import pretty_repr

from analysis import host
from analysis.host import AnalyzerSetupError, Host
from analysis.llm import DailyBudget, DailyLimits, LlmConfig, Prices, Spending
from analysis.panel import Panel
from analysis.protocol import Finding, Subject, Turn, Vocabulary
from openbat import analysis_role
from openbat.analysis_role import Chatbots, Nudger, llm_config
from openbat.settings import load
from schemas import topics
from schemas.chatbots import Chatbot, ChatbotSettings, chatbot_codec
from schemas.codec import UndecodableError
from streams.app import make_app
from streams.lanes import Lanes, Received
from tests.unit.fakes import Failures

KEY = "secret-secret-secret"
LLM = {
    "OPENBAT_LLM_URL": "https://llm.example.com/v1",
    "OPENBAT_LLM_MODEL": "made-up-1",
    "OPENBAT_LLM_API_KEY": KEY,
    "OPENBAT_LLM_CONCURRENCY": "3",
    "OPENBAT_LLM_TIMEOUT_SECONDS": "7.5",
    "OPENBAT_LLM_ISOLATE": "true",
    "OPENBAT_LLM_PROMPT_PRICE": "0.5",
    "OPENBAT_LLM_COMPLETION_PRICE": "2",
}
BUDGET = DailyBudget(Spending("w"), lambda _: DailyLimits(), Prices(), lambda _: asyncio.sleep(0))
DOCUMENT = Path(__file__).parents[2] / "docs" / "analysis.md"


def handed(config: LlmConfig | None = None) -> Host:
    return Host(BUDGET, config)


async def test_analyzers_are_made_in_the_order_of_their_names() -> None:
    made = host.make(["llm", "offline"], handed(llm_config(load(LLM))))
    assert [each.name for each in made] == ["llm:made-up-1", "offline"]
    assert [each.paid for each in made] == [True, False]
    for each in made:
        await each.close()


def test_a_name_that_nobody_has_says_which_there_are() -> None:
    with pytest.raises(AnalyzerSetupError, match=r"'offlin' here, but llm, offline: install"):
        host.make(["offline", "offlin"], handed())


def test_without_an_endpoint_it_is_said_what_is_missing() -> None:
    for lacking in ("OPENBAT_LLM_URL", "OPENBAT_LLM_MODEL"):
        config = llm_config(load({name: LLM[name] for name in LLM if name != lacking}))
        with pytest.raises(AnalyzerSetupError, match=lacking):
            host.make(["llm"], handed(config))


def test_without_its_client_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # As before their first import: the one that imports the client, and the one that imports it.
    monkeypatch.delitem(sys.modules, "analysis.llm.analyzer", raising=False)
    monkeypatch.delitem(sys.modules, "analysis.llm.endpoint", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(AnalyzerSetupError, match=r"lacks openai: pip install .*\[llm\]"):
        host.make(["llm"], handed(llm_config(load(LLM))))


async def test_an_analyzer_of_another_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one that the documentation shows."""
    (shown,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "my_analyzers.py").write_text(shown)
    installed = tmp_path / "shouting-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[openbat.analyzers]\nshouting = my_analyzers:make\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = host.make(["shouting", "offline"], handed())
    monkeypatch.delitem(sys.modules, "my_analyzers")
    assert [each.name for each in made] == ["shouting", "offline"]
    with pytest.raises(AnalyzerSetupError, match="llm, offline, shouting"):
        host.make(["whispering"], handed())

    words = Vocabulary(flags=("shouting",))
    kinds = frozenset(made[0].kinds)
    asked = [
        Subject(bytes(16), Turn("m", "user", content, 0), (), kinds, words)
        for content in ("HELLO", "hello")
    ]
    panel = Panel(made[:1], None, lambda *_: None)
    answers = [each async for _, found in panel.judge(asked, {}, 60) for each in found]
    assert answers == [(0, (Finding("flags", labels=("shouting",)),)), (1, (Finding("flags"),))]
    for each in made:
        await each.close()


def test_the_endpoint_is_the_one_that_the_settings_name() -> None:
    assert llm_config(load({})) is None
    config = llm_config(load(LLM))
    assert config == LlmConfig(
        url="https://llm.example.com/v1", model="made-up-1", api_key=KEY, concurrency=3,
        timeout_seconds=7.5, isolate=True, prices=Prices(0.5, 2.0),
    )  # fmt: skip
    without_key = llm_config(load({name: LLM[name] for name in LLM if "KEY" not in name}))
    assert without_key
    assert without_key.api_key == ""


async def test_nothing_that_holds_the_key_shows_it() -> None:
    config = llm_config(load(LLM))
    analyzers = host.make(["llm"], handed(config))
    panel = Panel(analyzers, None, lambda *_: None)
    for holder in (config, handed(config), analyzers[0], analyzers, panel):
        for shown in (repr(holder), str(holder), f"{holder}", pretty_repr(holder)):
            assert KEY not in shown
    assert "made-up-1" in repr(handed(config))
    await panel.close()


def test_a_chatbots_settings_are_those_that_the_registry_has_now() -> None:
    chatbots = Chatbots()
    chatbot_id = UUID(int=5)
    assert chatbots.settings_of(chatbot_id.bytes) == ChatbotSettings()
    assert chatbots.limits_of(chatbot_id.bytes) == DailyLimits()

    def change(settings: ChatbotSettings | None) -> None:
        made = datetime(2026, 1, 1, tzinfo=UTC)
        value = None
        if settings is not None:
            bot = Chatbot(str(chatbot_id), "bot", b"", "", made, settings=settings)
            value = chatbot_codec.encode(bot)
        chatbots.registry.apply(chatbot_id.bytes, value)

    change(ChatbotSettings(analysis_off=("topics",), tokens_per_day=0, cost_per_day=1.5))
    assert "topics" not in chatbots.settings_of(chatbot_id.bytes).analyses
    assert chatbots.limits_of(chatbot_id.bytes) == DailyLimits(0, 1.5)
    change(ChatbotSettings(analysis=False))
    assert chatbots.settings_of(chatbot_id.bytes).analyses == frozenset()
    assert chatbots.limits_of(chatbot_id.bytes) == DailyLimits()
    with pytest.raises(UndecodableError):
        chatbots.registry.apply(chatbot_id.bytes, b"\xff")
    assert chatbots.limits_of(chatbot_id.bytes) == DailyLimits(0, 0)
    change(None)
    assert chatbots.settings_of(chatbot_id.bytes) == ChatbotSettings()
    assert chatbots.limits_of(chatbot_id.bytes) == DailyLimits()


async def test_partitions_are_nudged_while_they_are_this_workers_and_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis_role, "NUDGE_SECONDS", 0)
    nudged: asyncio.Queue[tuple[int, list[Received]]] = asyncio.Queue()

    async def process(partition: int, records: list[Received]) -> None:
        nudged.put_nowait((partition, records))

    app = make_app(topics.ANALYSIS_GROUP, "127.0.0.1:1", 4, tmp_path, "instance")
    app.finalize()
    lanes = Lanes(process, Failures())
    nudger = Nudger(app, lanes)

    async def partitions() -> set[int]:
        """Return what is nudged in a while."""
        await settle()
        await lanes.drained()
        while not nudged.empty():
            nudged.get_nowait()
        await settle()
        return {nudged.get_nowait()[0] for _ in range(nudged.qsize())}

    async def settle() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    def own(*positions: tuple[str, int]) -> None:
        sought = {TP(topic, partition): 7 for topic, partition in positions}
        for follow in app.on_seek:
            follow(sought)

    ends: dict[TP, int] = {}
    app.consumer = SimpleNamespace(highwater=ends.get)
    running = asyncio.create_task(nudger.run())
    own((topics.ANALYSIS, 1), (topics.ANALYSIS, 3), (topics.ANALYSIS_LATER, 2))
    app.tables.actives_ready = False
    assert await partitions() == set()
    app.tables.actives_ready = True
    assert await partitions() == set()  # it is not known yet how much there is
    ends |= {TP(topics.ANALYSIS, 1): 7, TP(topics.ANALYSIS, 3): 9}
    assert await partitions() == {1}
    nudger.took(3, 7)
    assert await partitions() == {1}
    nudger.took(3, 8)
    assert await partitions() == {1, 3}
    nudger.start_over()
    assert await partitions() == set()
    own((topics.ANALYSIS, 0))
    ends[TP(topics.ANALYSIS, 0)] = 7
    assert await partitions() == {0}
    running.cancel()
    await lanes.drained()
