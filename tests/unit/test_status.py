"""What `openbat status` calls wrong, how it says it, and what it does where nothing answers."""

import json
import logging
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console
from typer.testing import CliRunner, Result

from openbat import cli
from openbat.local import state
from openbat.status import look
from openbat.status.cli import NOT_WELL
from openbat.status.groups import assigned
from openbat.status.judge import LATE_SECONDS, Judgement, age, judge
from openbat.status.seen import (
    GROUPS,
    READS,
    STABLE,
    LettersSeen,
    ProcessSeen,
    Role,
    RoleSeen,
    RowsSeen,
    Seen,
    TopicSeen,
)
from openbat.status.shown import document, rendered

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def role(name: Role, **values: Any) -> RoleSeen:
    found = [TopicSeen(topic, 8, 8, 0, None) for topic in READS[name]]
    return replace(RoleSeen(name, GROUPS[name], STABLE, 1, True, found), **values)


def topic(name: str, **values: Any) -> list[TopicSeen]:
    return [replace(TopicSeen(name, 8, 8, 0, None), **values)]


WELL = Seen(
    at=NOW,
    roles=[role("conversations"), role("clickhouse"), role("analysis")],
    clickhouse=RowsSeen(1234, NOW - timedelta(seconds=3)),
    dead_letters=LettersSeen(0, {}),
    processes=None,
    away={},
)
NOBODY = {"state": "Empty", "members": 0}


def seen(*changed: RoleSeen, **values: Any) -> Seen:
    """Return a look at a deployment that is well, but for these roles and parts."""
    by_role = {each.role: each for each in [*(WELL.roles or []), *changed]}
    return replace(WELL, **{"roles": [*by_role.values()], **values})


def text(found: Seen) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(rendered(found, judge(found)))
    return capture.get()


def test_nothing_is_wrong_where_all_are_there_and_nothing_lags() -> None:
    assert judge(WELL) == Judgement([], [])
    assert "All is well." in text(WELL)


@pytest.mark.parametrize("name", list(GROUPS))
def test_a_role_that_nobody_does_is_a_problem_that_says_what_to_start(name: Role) -> None:
    (problem,) = judge(seen(role(name, **NOBODY))).problems
    assert f"no {name} worker is a member of its group {GROUPS[name]}" in problem
    assert f"`openbat worker {name}`" in problem


def test_analysis_may_be_left_out_while_nothing_waits_for_it() -> None:
    never = role("analysis", state="Dead", members=0, was_there=False)
    assert judge(seen(never)) == Judgement([], [])
    waiting = replace(never, topics=topic("analysis", lag_records=1))
    assert len(judge(seen(waiting)).problems) == 1


def test_a_partition_that_nobody_reads_is_a_problem_once_the_group_is_settled() -> None:
    lonely = role("clickhouse", topics=topic("analyses", read=6))
    (problem,) = judge(seen(lonely)).problems
    assert problem.startswith("2 of 8 partitions of analyses are read by no clickhouse worker")
    settling = judge(seen(replace(lonely, state="PreparingRebalance")))
    assert settling.problems == []
    assert "PreparingRebalance" in settling.notes[0]


@pytest.mark.parametrize("name", list(GROUPS))
def test_what_waits_for_too_long_is_noted_with_its_alert(name: Role) -> None:
    runbook = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for seconds, noted in ((LATE_SECONDS[name], False), (LATE_SECONDS[name] + 1, True)):
        late = role(name, topics=topic(READS[name][-1], lag_records=5, oldest_seconds=seconds))
        found = judge(seen(late))
        assert found.problems == []
        assert bool(found.notes) is noted
    assert f"### {found.notes[0].split()[-1]}\n" in runbook


def test_dead_letters_are_noted_and_a_dead_process_is_a_problem() -> None:
    (note,) = judge(seen(dead_letters=LettersSeen(1, {"other": 1}))).notes
    assert note.startswith("1 dead letter is kept: `openbat dead-letters list`")
    alive = [ProcessSeen("gateway", 7, alive=True)]
    assert judge(seen(processes=alive)) == Judgement([], [])
    (problem,) = judge(seen(processes=[*alive, ProcessSeen("kafka", 8, alive=False)])).problems
    assert "kafka, process 8, is not alive" in problem


def test_one_thing_that_is_away_is_told_once_and_shown_in_each_part() -> None:
    why = "Kafka does not answer: check it"
    found = seen(roles=None, dead_letters=None, away={"roles": why, "dead_letters": why})
    assert judge(found).problems == [why]
    assert text(found).count("does not answer\n") == 2
    assert "1,234 messages" in text(found)


def test_a_glance_shows_members_lag_age_rows_letters_and_processes() -> None:
    found = seen(
        role(
            "conversations", topics=topic("captures", read=7, lag_records=1200, oldest_seconds=75)
        ),
        dead_letters=LettersSeen(3, {"rejected_row": 2, "other": 1}),
        processes=[ProcessSeen("gateway", 7, alive=True), ProcessSeen("kafka", 8, alive=False)],
    )
    lines = text(found).splitlines()
    assert lines[1].split() == [
        "conversations",
        "1",
        "captures",
        "7",
        "of",
        "8",
        "1,200",
        "75",
        "s",
    ]
    assert "ClickHouse    1,234 messages, the newest received 3.0 s ago" in text(found)
    assert "Dead letters  3: rejected_row 2, other 1" in lines
    assert "Local stack   gateway 7, kafka 8 (not alive)" in lines
    assert "no message yet" in text(seen(clickhouse=RowsSeen(0, None)))


def test_the_document_has_every_part() -> None:
    decoded = json.loads(msgspec.json.encode(document(WELL, judge(WELL))))
    assert decoded["ok"] is True
    assert decoded["roles"][0]["topics"] == [
        {"topic": "captures", "partitions": 8, "read": 8, "lag_records": 0, "oldest_seconds": None}
    ]
    assert decoded["clickhouse"]["newest_received_at"] == "2026-01-01T11:59:57Z"
    assert decoded["problems"] == decoded["notes"] == []


@given(st.floats(0, 1e9))
def test_an_age_is_short_and_has_a_unit(seconds: float) -> None:
    number, unit = age(seconds).split()
    length = {"s": 1, "min": 60, "h": 3600, "d": 86_400}[unit]
    assert abs(float(number) * length - seconds) <= length / 2 + 1e-6
    assert len(number) <= 5


def test_partitions_of_members_are_put_together_and_a_joining_one_has_none() -> None:
    encoded = ConsumerProtocolMemberAssignment(0, [("captures", [0, 2])], b"").encode()
    other = ConsumerProtocolMemberAssignment(0, [("messages", [1])], b"\x00").encode()
    assert assigned([encoded, b"", other]) == {
        TopicPartition("captures", 0), TopicPartition("captures", 2), TopicPartition("messages", 1),
    }  # fmt: skip


def status(tmp_path: Path, *arguments: str, kafka: str, clickhouse: str) -> Result:
    environment = {
        "OPENBAT_DATA_DIR": str(tmp_path),
        "OPENBAT_KAFKA_BOOTSTRAP": kafka,
        "OPENBAT_CLICKHOUSE_URL": clickhouse,
    }
    try:
        return CliRunner().invoke(cli.app, ["status", *arguments], env=environment)
    finally:
        logging.disable(logging.NOTSET)


def test_where_nothing_is_there_each_part_says_what_to_check(tmp_path: Path) -> None:
    done = status(tmp_path, "--json", kafka="127.0.0.1:1", clickhouse="http://127.0.0.1:1")
    assert done.exit_code == NOT_WELL
    found = json.loads(done.stdout)
    assert (found["ok"], found["roles"], found["clickhouse"]) == (False, None, None)
    assert "check OPENBAT_KAFKA_BOOTSTRAP" in found["away"]["roles"]
    assert found["away"]["clickhouse"].endswith("Connection refused; check OPENBAT_CLICKHOUSE_URL")
    assert len(found["problems"]) == 2


@pytest.fixture
def deaf() -> Iterator[str]:
    """Return an address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        yield f"{host}:{port}"


def test_what_never_answers_is_given_up_in_time(
    tmp_path: Path, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "PART_SECONDS", 1.0)
    monkeypatch.setattr(look, "CLICKHOUSE_ANSWER_SECONDS", 1)
    began = time.monotonic()
    done = status(tmp_path, kafka=deaf, clickhouse=f"http://{deaf}")
    assert time.monotonic() - began < 15
    assert done.exit_code == NOT_WELL
    assert "! Kafka did not answer within 1 s: look at its brokers" in done.stdout
    assert "OPENBAT_CLICKHOUSE_URL" in done.stdout


def test_watching_is_no_json_document(tmp_path: Path) -> None:
    done = status(tmp_path, "--watch", "--json", kafka="127.0.0.1:1", clickhouse="http://a")
    assert done.exit_code == 2


def test_processes_are_looked_at_where_a_local_stack_runs(tmp_path: Path) -> None:
    assert look.look_at_processes(tmp_path) is None
    with state.locked(tmp_path):
        running = state.LocalState("", "", "", "", "", [state.Process("gateway", 1)])
        state.write(tmp_path, running)
        assert look.look_at_processes(tmp_path) == [ProcessSeen("gateway", 1, alive=True)]
        running.processes = [state.Process("gateway", 2**22 + 1)]
        state.write(tmp_path, running)
        assert look.look_at_processes(tmp_path) == [ProcessSeen("gateway", 2**22 + 1, alive=False)]
