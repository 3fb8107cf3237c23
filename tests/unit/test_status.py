"""What `openbat status` calls wrong, how it says it, and what it does where nothing answers."""

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
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
from prometheus_client import CollectorRegistry
from rich.console import Console
from typer.testing import CliRunner, Result

from openbat import cli
from openbat.health import ALIVE, METRICS, READY, Check, serve
from openbat.local import state
from openbat.settings import Settings
from openbat.status import look, processes
from openbat.status.cli import NOT_WELL, eyes_of
from openbat.status.groups import assigned
from openbat.status.judge import LATE_SECONDS, Judgement, age, judge
from openbat.status.processes import look_at_processes
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
GATEWAY = ProcessSeen("gateway", 7, alive=True, name="gateway-0", answers=True)
KAFKA = ProcessSeen("kafka", 8, alive=True, name="kafka-0")
THREE = [ProcessSeen("conversations", 10 + n, True, f"conversations-{n}", True) for n in range(3)]


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


def test_analysis_that_nobody_does_can_be_switched_off_too() -> None:
    (problem,) = judge(seen(role("analysis", **NOBODY))).problems
    assert "start `openbat worker analysis`" in problem
    assert "`openbat chatbots set NAME analysis=off`" in problem
    (other,) = judge(seen(role("clickhouse", **NOBODY))).problems
    assert "analysis" not in other


def test_fewer_members_than_processes_is_a_problem_once_the_group_is_settled() -> None:
    few = role("conversations", members=2)
    (problem,) = judge(seen(few, processes=THREE)).problems
    assert problem.startswith("3 conversations workers of the local stack run, and 2 of them share")
    assert "joins within some seconds" in problem
    assert judge(seen(replace(few, state="CompletingRebalance"), processes=THREE)).problems == []
    # Others may run beside it.
    assert judge(seen(replace(few, members=4), processes=THREE)).problems == []
    # One that is not alive is said as such.
    dead = [*THREE[:2], replace(THREE[2], alive=False, answers=None)]
    (problem,) = judge(seen(few, processes=dead)).problems
    assert "conversations-2, process 12, is not alive" in problem


def test_a_process_that_does_not_answer_is_a_problem_that_names_it() -> None:
    hung = replace(THREE[1], answers=False)
    found = seen(role("conversations", members=3), processes=[THREE[0], hung, THREE[2], KAFKA])
    (problem,) = judge(found).problems
    assert "conversations-1, process 11, is alive and does not answer" in problem
    assert "logs/conversations-1.log" in problem
    assert "conversations-1 11 (does not answer)," in text(found)


def test_what_keeps_several_from_their_work_is_told_once() -> None:
    away = [replace(each, reasons=["Kafka does not answer."]) for each in THREE[:2]]
    other = replace(GATEWAY, reasons=["The gateway is stopping."])
    found = seen(role("conversations", members=3), processes=[*away, THREE[2], other])
    assert judge(found).problems == [
        "the local stack's conversations-0, conversations-1 are not ready: Kafka does not answer.",
        "the local stack's gateway-0 is not ready: The gateway is stopping.",
    ]
    assert "conversations-1 11 (not ready), conversations-2 12, gateway-0 7 (not ready)" in text(
        found
    )


def test_clickhouse_that_lacks_a_table_answers_and_says_which() -> None:
    lacks = seen(clickhouse=RowsSeen(None, None, ["message_rows", "messages"]))
    (problem,) = judge(lacks).problems
    assert problem.startswith(
        "ClickHouse answers, but openbat.message_rows, openbat.messages are missing: "
        "run `openbat migrate`"
    )
    assert "ClickHouse    answers, without a table of messages" in text(lacks)
    one = seen(clickhouse=RowsSeen(5, NOW, ["users_daily"]))
    assert "openbat.users_daily is missing" in judge(one).problems[0]
    assert "5 rows of messages" in text(one)


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
    assert judge(seen(processes=[GATEWAY, KAFKA])) == Judgement([], [])
    (problem,) = judge(seen(processes=[GATEWAY, replace(KAFKA, alive=False)])).problems
    assert "kafka-0, process 8, is not alive" in problem


def test_one_thing_that_is_away_is_told_once_and_shown_in_each_part() -> None:
    why = "Kafka does not answer: check it"
    found = seen(roles=None, dead_letters=None, away={"roles": why, "dead_letters": why})
    assert judge(found).problems == [why]
    assert text(found).count("not seen, see below\n") == 2
    assert "1,234 rows of messages" in text(found)


def test_a_glance_shows_members_lag_age_rows_letters_and_processes() -> None:
    found = seen(
        role(
            "conversations", topics=topic("captures", read=7, lag_records=1200, oldest_seconds=75)
        ),
        dead_letters=LettersSeen(3, {"rejected_row": 2, "other": 1}),
        processes=[GATEWAY, replace(KAFKA, alive=False)],
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
    assert "ClickHouse    1,234 rows of messages, the newest received 3.0 s ago" in text(found)
    assert "Dead letters  3: rejected_row 2, other 1" in lines
    assert "Local stack   gateway-0 7, kafka-0 8 (not alive)" in lines
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
    assert "HTTPConnectionPool" not in done.stdout


def test_where_nobody_named_brokers_a_local_stack_is_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Settings(tmp_path, kafka_bootstrap="127.0.0.1:1", clickhouse_url="http://127.0.0.1:1")
    monkeypatch.delenv("OPENBAT_KAFKA_BOOTSTRAP", raising=False)
    first, second = judge(asyncio.run(eyes_of(nowhere).look())).problems
    assert first == (
        f"no local stack runs in {tmp_path}: `openbat local` (or `make run`) starts one; else name "
        "the brokers by OPENBAT_KAFKA_BOOTSTRAP"
    )
    assert second.startswith("ClickHouse can't be used at http://127.0.0.1:1")
    # A stack that runs has said where its Kafka is, and that is away.
    with state.locked(tmp_path):
        state.write(tmp_path, state.LocalState("", "", "", "", "", []))
        assert (
            "Kafka does not answer at 127.0.0.1:1"
            in asyncio.run(eyes_of(nowhere).look()).away["roles"]
        )
    monkeypatch.setenv("OPENBAT_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    assert "check OPENBAT_KAFKA_BOOTSTRAP" in asyncio.run(eyes_of(nowhere).look()).away["roles"]


def test_watching_is_no_json_document(tmp_path: Path) -> None:
    done = status(tmp_path, "--watch", "--json", kafka="127.0.0.1:1", clickhouse="http://a")
    assert done.exit_code == 2


def looked(tmp_path: Path, *running: state.Process) -> list[ProcessSeen]:
    """Return what is seen of a running stack of these processes."""
    with state.locked(tmp_path):
        state.write(tmp_path, state.LocalState("", "", "", "", "", list(running)))
        found = asyncio.run(look_at_processes(tmp_path))
    assert found is not None
    return found


def test_processes_are_looked_at_where_a_local_stack_runs(tmp_path: Path) -> None:
    assert asyncio.run(look_at_processes(tmp_path)) is None
    assert looked(tmp_path, state.Process("kafka", 1, None, "kafka-0")) == [
        ProcessSeen("kafka", 1, alive=True, name="kafka-0")
    ]
    gone = 2**22 + 1
    assert looked(tmp_path, state.Process("kafka", gone)) == [
        ProcessSeen("kafka", gone, alive=False, name="kafka")
    ]


@pytest.fixture
def served() -> Iterator[Any]:
    """Return a function that serves health checks, and returns where."""
    servers = []

    def start(checks: Mapping[str, Check]) -> str:
        servers.append(serve(CollectorRegistry(), "127.0.0.1", 0, checks))
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_each_process_is_asked_for_its_health_and_one_that_hangs_delays_no_other(
    tmp_path: Path, deaf: str, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "READY_SECONDS", 1.0)

    def slow() -> list[str]:
        time.sleep(1.5)
        return []

    urls = {
        "well": served({ALIVE: list, READY: list}),
        "unready": served({ALIVE: list, READY: lambda: ["Kafka does not answer."]}),
        "stuck": served({ALIVE: lambda: ["Stuck."], READY: lambda: ["Stuck."]}),
        "late": served({ALIVE: list, READY: slow}),
        "hangs": f"http://{deaf}",
        "hangs-too": f"http://{deaf}",
        "starts": "http://127.0.0.1:1",
    }
    me = os.getpid()
    began = time.monotonic()
    found = looked(
        tmp_path, *(state.Process("analysis", me, url + METRICS, of) for of, url in urls.items())
    )
    assert time.monotonic() - began < 3
    assert {each.name: (each.answers, each.reasons) for each in found} == {
        "well": (True, []),
        "unready": (True, ["Kafka does not answer."]),
        "stuck": (True, ["Stuck."]),
        "late": (True, ["It did not say within 1 s whether it is ready."]),
        "hangs": (False, []),
        "hangs-too": (False, []),
        "starts": (False, []),
    }
