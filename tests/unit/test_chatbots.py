"""A chatbot's settings: what can be set, what is refused, and what the command line shows."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from typer.testing import CliRunner, Result

import openbat.kafka
from gateway.admin_types import ChatbotView
from gateway.registry import Registry
from openbat import chatbots, chatbots_cli, cli
from openbat.chatbot_settings import analysis_rows, with_settings
from openbat.chatbots import ChatbotError
from openbat.command import UnansweredError
from openbat.connection import Connection
from openbat.local import state
from schemas.analysis import KINDS, MAX_LABEL_CHARACTERS, MAX_VOCABULARY
from schemas.chatbots import DEMO, Chatbot, ChatbotSettings, chatbot_codec
from tests.unit.test_gateway import KEY, chatbot, entry, sha256

NAME = "chatbot 1"


def settings(**values: str) -> ChatbotSettings:
    """Return the settings of a new chatbot after these changes; names have _ for -."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return with_settings(chatbot(), named).settings


def analysed(*changes: tuple[str, str]) -> ChatbotSettings:
    made = chatbot()
    for name, value in changes:
        made = with_settings(made, {name: value})
    return made.settings


def test_a_new_chatbot_is_analysed_whole() -> None:
    assert ChatbotSettings().analyses == set(KINDS)
    assert ChatbotSettings().is_analysed


def test_a_kind_is_switched_off_and_on_again() -> None:
    off = analysed(("analysis.sentiment", "off"), ("analysis.flags", "off"))
    assert off.analyses == set(KINDS) - {"sentiment", "flags"}
    assert off.analysis_off == ("sentiment", "flags")
    assert off.is_analysed
    on = analysed(("analysis.sentiment", "off"), ("analysis.sentiment", "on"))
    assert on == ChatbotSettings()


def test_all_of_it_is_switched_off_and_on_again() -> None:
    off = settings(analysis="off")
    assert off == ChatbotSettings(analysis=False)
    assert not off.is_analysed
    assert analysed(("analysis", "off"), ("analysis", "on")) == ChatbotSettings()


def test_all_kinds_off_is_said_as_earlier_releases_know_it() -> None:
    assert analysed(*((f"analysis.{kind}", "off") for kind in KINDS)) == settings(analysis="off")


def test_one_kind_alone_is_switched_on() -> None:
    one = analysed(("analysis", "off"), ("analysis.resolution", "on"))
    assert one.analyses == {"resolution"}
    assert one.is_analysed


switches = st.tuples(
    st.sampled_from(["analysis", *(f"analysis.{kind}" for kind in KINDS)]),
    st.sampled_from(["on", "off"]),
)


@given(st.lists(switches, max_size=8))
def test_the_last_switch_of_each_kind_counts(changes: list[tuple[str, str]]) -> None:
    wanted = set(KINDS)
    for name, value in changes:
        meant = {name.removeprefix("analysis.")} if "." in name else set(KINDS)
        wanted = {kind for kind in KINDS if (value == "on" if kind in meant else kind in wanted)}
    made = analysed(*changes)
    assert made.analyses == wanted
    assert made.is_analysed is bool(wanted)
    assert (made.analysis, made.analysis_off) != (True, KINDS)


def test_kinds_of_a_later_release_switch_nothing_off_here() -> None:
    later = ChatbotSettings(analysis_off=("irony",))
    assert later.analyses == set(KINDS)
    assert ChatbotSettings(analysis_off=("irony", *KINDS)).is_analysed is False


@pytest.mark.parametrize("name", ["intents", "flags"])
def test_a_vocabulary_is_set_and_given_up_again(name: str) -> None:
    made = settings(**{name: "return, größe ändern ,return"})
    assert getattr(made, name) == ("return", "größe ändern")
    again = with_settings(with_settings(chatbot(), {name: "a,b"}), {name: "default"})
    assert again.settings == ChatbotSettings()


def test_what_may_be_spent_is_set_and_unbounded_again() -> None:
    made = settings(tokens_per_day="100000", cost_per_day="2.5")
    assert (made.tokens_per_day, made.cost_per_day) == (100_000, 2.5)
    nothing = settings(tokens_per_day="0", cost_per_day="0")
    assert (nothing.tokens_per_day, nothing.cost_per_day) == (0, 0)
    changed = with_settings(
        with_settings(chatbot(), {"tokens-per-day": "1", "cost-per-day": "1"}),
        {"tokens-per-day": "unlimited", "cost-per-day": "unlimited"},
    )
    assert changed.settings == ChatbotSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("analysis", "perhaps"),
        ("analysis.mood", "off"),
        ("analysis.", "off"),
        ("analysis.sentiment", "maybe"),
        ("sentiment", "off"),
        ("intents", ""),
        ("intents", "a,,b"),
        ("intents", "none"),
        ("flags", "x" * (MAX_LABEL_CHARACTERS + 1)),
        ("flags", "a\x1b[2J"),
        ("flags", "\udcff"),
        ("flags", ",".join(f"f{number}" for number in range(MAX_VOCABULARY + 1))),
        ("tokens-per-day", "-1"),
        ("tokens-per-day", "1.5"),
        ("tokens-per-day", "many"),
        ("tokens-per-day", "9" * 5000),
        ("cost-per-day", "-0.01"),
        ("cost-per-day", "nan"),
        ("cost-per-day", "inf"),
        ("cost-per-day", "$2"),
    ],
)
def test_what_can_not_be_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ChatbotError, match=f"^{name}="):
        with_settings(chatbot(), {name: value})


@given(
    st.dictionaries(
        st.sampled_from(["intents", "flags", "tokens-per-day", "cost-per-day", "analysis"]),
        st.text(max_size=8),
    )
)
def test_whatever_is_taken_is_read_by_every_gateway(values: dict[str, str]) -> None:
    try:
        made = with_settings(chatbot(), values)
    except ChatbotError:
        return
    assert chatbot_codec.decode(chatbot_codec.encode(made)) == made


def test_rows_say_what_is_in_force() -> None:
    assert analysis_rows(ChatbotSettings()) == {
        "analysis": " ".join(KINDS),
        "intents": "(the default ones)",
        "flags": "(the default ones)",
        "tokens-per-day": "unlimited",
        "cost-per-day": "unlimited",
    }
    assert analysis_rows(settings(analysis="off"))["analysis"] == "off"


class Commands:
    """`openbat chatbots`, over a registry in memory."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._runner = CliRunner()

    def invoke(self, *arguments: str, stdin: str | None = None) -> Result:
        return self._runner.invoke(
            cli.app, ["chatbots", *arguments], catch_exceptions=False, input=stdin
        )

    def run(self, *arguments: str) -> str:
        done = self.invoke(*arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    @property
    def chatbot(self) -> Chatbot:
        found = self.registry.chatbot(UUID(int=1).bytes)
        assert found is not None
        return found


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    registry = Registry()
    registry.apply(*entry(chatbot()))

    async def edit(_: Connection, change: Any) -> Any:
        for key, value in change(registry):
            registry.apply(key, value)

    async def read(_: Connection) -> Registry:
        return registry

    async def partitions(_: Connection) -> int:
        return 8

    monkeypatch.setattr(chatbots_cli, "connection", lambda: Connection("nowhere"))
    monkeypatch.setattr(chatbots, "edit_registry", edit)
    monkeypatch.setattr(openbat.kafka, "read_registry", read)
    monkeypatch.setattr(openbat.kafka, "captures_partitions", partitions)
    return Commands(registry)


def test_settings_are_set_and_shown(commands: Commands) -> None:
    said = commands.run(
        "set", NAME, "analysis.sentiment=off", "intents=return,size", "flags=vip",
        "tokens-per-day=1000", "cost-per-day=2.5",
    )  # fmt: skip
    assert said == (
        f"{NAME}: analysis.sentiment=off intents=return,size flags=vip tokens-per-day=1000 "
        "cost-per-day=2.5\n"
    )
    assert commands.chatbot.settings == ChatbotSettings(
        analysis_off=("sentiment",),
        intents=("return", "size"),
        flags=("vip",),
        tokens_per_day=1000,
        cost_per_day=2.5,
    )
    shown = commands.run("show", NAME)
    assert shown.splitlines()[7:] == [
        "analysis       intent topics flags behaviour resolution",
        "intents        return,size",
        "flags          vip",
        "tokens-per-day 1000",
        "cost-per-day   2.5",
        "remember-ids   forever",
    ]


def test_what_is_listed_and_shown_is_json_as_the_admin_api_has_it(commands: Commands) -> None:
    commands.run("set-schema", NAME, "plan=string")
    view = msgspec.json.decode(msgspec.json.encode(ChatbotView.of(commands.chatbot)))
    assert view["name"] == NAME
    assert msgspec.json.decode(commands.run("show", NAME, "--json")) == view
    assert msgspec.json.decode(commands.run("list", "--json")) == {"chatbots": [view]}


@pytest.mark.parametrize("as_it_is", [(), ("--json",)])
def test_a_chatbot_is_pending_until_its_first_capture(
    commands: Commands, as_it_is: tuple[str, ...]
) -> None:
    def shown() -> set[str]:
        said = [commands.run("list", *as_it_is), commands.run("show", NAME, *as_it_is)]
        return {
            word
            for text in said
            for word in ("pending", "active", "archived")
            if word in text.replace('"', " ").split()
        }

    assert shown() == {"pending"}
    captured = replace(commands.chatbot, first_capture_at=datetime(2026, 1, 1, tzinfo=UTC))
    commands.registry.apply(*entry(captured))
    assert shown() == {"active"}
    commands.run("set-schema", NAME, "plan=string")
    assert shown() == {"active"}
    commands.run("archive", NAME, "--yes")
    assert shown() == {"archived"}
    assert commands.chatbot.first_capture_at == captured.first_capture_at


def test_archiving_asks_first(commands: Commands) -> None:
    with pytest.raises(UnansweredError, match="--yes"):
        commands.invoke("archive", NAME)
    with pytest.raises(ChatbotError, match="no chatbot 'other'"):
        commands.invoke("archive", "other", stdin="y\n")
    done = commands.invoke("archive", NAME, stdin="n\n")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{NAME} will take no more captures" in done.stderr
    assert commands.chatbot.shown_state == "pending"
    done = commands.invoke("archive", NAME, stdin="y\n")
    assert (done.exit_code, done.stdout) == (0, f"{NAME} is archived\n")
    assert "archived" in commands.run("show", NAME)


def test_a_new_key_is_all_that_a_script_reads_and_the_old_ones_end_is_said(
    commands: Commands,
) -> None:
    done = commands.invoke("rotate-key", NAME)
    key = done.stdout.strip()
    assert commands.chatbot.key_sha256 == sha256(key)
    assert "The old key stops at every gateway within a second" in done.stderr
    help_text = " ".join(commands.run("rotate-key", "--help").split())
    assert "answered with 401 at every gateway within a second" in help_text


def test_the_key_of_a_demo_that_was_restored_is_kept_for_the_next_start_of_a_local_stack(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENBAT_DATA_DIR", str(tmp_path))
    commands.registry.apply(*entry(replace(commands.chatbot, name=DEMO)))
    state.write(tmp_path, state.LocalState("", "", "", "the id before", KEY, []))
    with state.locked(tmp_path):
        key = commands.run("rotate-key", DEMO).strip()
    assert state.read_text(tmp_path / "demo.key") == key


def test_times_are_shown_as_they_are_listed(commands: Commands) -> None:
    assert commands.run("list").splitlines()[0].endswith("  2025-01-01 00:00")
    assert "created        2025-01-01 00:00\n" in commands.run("show", NAME)


def test_analysis_is_switched_off_and_on(commands: Commands) -> None:
    commands.run("set", NAME, "analysis=off")
    assert "analysis       off\n" in commands.run("show", NAME)
    commands.run("set", NAME, "analysis=on")
    assert f"analysis       {' '.join(KINDS)}\n" in commands.run("show", NAME)


def test_what_is_refused_changes_nothing(commands: Commands) -> None:
    with pytest.raises(ChatbotError, match=r"analysis\.mood=off: expected .*analysis\.KIND=on"):
        commands.run("set", NAME, "analysis=off", "analysis.mood=off")
    with pytest.raises(ChatbotError, match="analysis: expected name=value"):
        commands.run("set", NAME, "analysis")
    assert commands.chatbot.settings == ChatbotSettings()
