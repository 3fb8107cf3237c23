"""Analysis on the real stack: what was captured has its rows, each once, whatever is killed."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.llm import LlmEndpoint
from tests.stack import Stack, local_stack, wait_until

CONVERSATIONS, TURNS = 400, 6

EXACTLY_ONCE = """
SELECT count() AS rows, uniqExact(conversation_id, message_id) AS messages
FROM openbat.analyses WHERE kind = 'sentiment'
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("analysis")
    with local_stack(directory, OPENBAT_ANALYSIS_WORKERS="1", OPENBAT_QUIET_SECONDS="3") as made:
        yield made


def conversation(name: str, turns: int = TURNS, angry: bool = False) -> dict[str, Any]:
    messages = []
    for turn in range(turns):
        said = "This is terrible, I hate it!" if angry else f"Can I book table {turn}, please?"
        messages += [
            {"id": f"u{turn}", "role": "user", "content": said},
            {"id": f"a{turn}", "role": "assistant", "content": f"Table {turn} is yours."},
        ]
    return {"conversationId": name, "messages": messages}


def post(stack: Stack, key: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(
        f"{stack.gateway_url}/api/v1/capture",
        headers={"Authorization": f"Bearer {key}", "Prefer": "wait=20"},
        json=body,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(stack: Stack, name: str, columns: str = "message_id, kind, label") -> list[dict[str, Any]]:
    """Return the analyses of a conversation, by its client's id."""
    return stack.sql(
        f"SELECT {columns} FROM openbat.analyses WHERE conversation_id IN (SELECT conversation_id "
        f"FROM openbat.conversations WHERE external_conversation_id = '{name}') "
        "ORDER BY message_id, kind"
    )


def wait_rows(stack: Stack, name: str, count: int, seconds: float = 30) -> list[dict[str, Any]]:
    wait_until(lambda: len(rows(stack, name)) >= count, seconds, f"{count} rows of {name}")
    return rows(stack, name)


def test_each_message_has_one_row_of_each_kind_and_a_quiet_conversation_one(stack: Stack) -> None:
    key = stack.make_chatbot("each")
    answer = post(stack, key, conversation("each-1", turns=1, angry=True))
    assert answer["analysisQueued"] is True
    found = wait_rows(stack, "each-1", 6)
    assert [(row["message_id"], row["kind"]) for row in found] == [
        ("", "resolution"),
        ("a0", "behaviour"),
        ("u0", "flags"),
        ("u0", "intent"),
        ("u0", "sentiment"),
        ("u0", "topics"),
    ]
    assert next(row["label"] for row in found if row["kind"] == "sentiment") == "negative"


def test_a_conversation_that_goes_on_is_judged_again(stack: Stack) -> None:
    key = stack.make_chatbot("again")
    post(stack, key, conversation("again-1", turns=1))
    wait_rows(stack, "again-1", 6)
    post(stack, key, conversation("again-1", turns=2))
    wait_rows(stack, "again-1", 12)
    judged = [
        row for row in rows(stack, "again-1", "kind, message_id, revision")
        if row["kind"] == "resolution"
    ]  # fmt: skip
    assert len({row["revision"] for row in judged}) == len(judged) == 2
    (latest,) = stack.sql(
        "SELECT count() AS n FROM openbat.resolutions WHERE conversation_id IN (SELECT "
        "conversation_id FROM openbat.conversations WHERE external_conversation_id = 'again-1')"
    )
    assert latest["n"] == 1


def test_what_is_switched_off_is_not_analysed(stack: Stack) -> None:
    key = stack.make_chatbot("off")
    stack.openbat("chatbots", "set", "off", "analysis.sentiment=off", "analysis.resolution=off")
    time.sleep(1.5)
    post(stack, key, conversation("off-1", turns=1))
    found = wait_rows(stack, "off-1", 4)
    time.sleep(5)
    assert {row["kind"] for row in rows(stack, "off-1")} == {row["kind"] for row in found}
    assert {row["kind"] for row in found} == {"behaviour", "flags", "intent", "topics"}
    stack.openbat("chatbots", "set", "off", "analysis=off")
    time.sleep(1.5)
    assert post(stack, key, conversation("off-2", turns=1))["analysisQueued"] is False
    time.sleep(5)
    assert rows(stack, "off-2") == []


def test_kills_of_the_worker_change_nothing(stack: Stack, tmp_path: Path) -> None:
    before = stack.sql(EXACTLY_ONCE)[0]["rows"]
    file = tmp_path / "conversations.jsonl"
    lines = [json.dumps(conversation(f"kill-{n}")) for n in range(CONVERSATIONS)]
    file.write_text("\n".join(lines) + "\n")
    done = stack.openbat("import", str(file))
    sent = CONVERSATIONS * TURNS
    assert f"stored={2 * sent} " in done.stdout
    for _ in range(3):
        (pid,) = stack.pids("analysis")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: stack.pids("analysis") not in ([pid], []), 30, "another worker")
        time.sleep(1.5)
    expected = [{"rows": before + sent, "messages": before + sent}]
    assert stack.wait_sql(EXACTLY_ONCE, expected, 90) == expected


def test_a_busy_chatbot_does_not_keep_another_waiting(tmp_path: Path) -> None:
    """By a model, which takes far longer for what the busy one has than for putting it off."""
    sent = 250 * 10
    lines = [json.dumps(conversation(f"busy-{n}", turns=10)) for n in range(250)]
    file = tmp_path / "busy.jsonl"
    file.write_text("\n".join(lines) + "\n")
    with LlmEndpoint() as endpoint:
        endpoint.latency_seconds = 0.5
        settings = {
            "OPENBAT_ANALYSIS_WORKERS": "1",
            "OPENBAT_ANALYZERS": "llm",
            "OPENBAT_LLM_URL": endpoint.url,
            "OPENBAT_LLM_MODEL": "slow",
        }
        with local_stack(tmp_path / "stack", **settings) as stack:
            quiet = stack.make_chatbot("not-busy")
            assert "failed=0" in stack.openbat("import", str(file)).stdout
            post(stack, quiet, conversation("not-busy-1", turns=1))
            wait_rows(stack, "not-busy-1", 5)
            of_busy = (
                "SELECT count() AS n FROM openbat.analyses WHERE kind = 'sentiment' "
                "AND conversation_id IN (SELECT conversation_id FROM openbat.conversations "
                "WHERE external_conversation_id LIKE 'busy-%')"
            )
            assert stack.sql(of_busy)[0]["n"] < sent / 2
            assert stack.wait_sql(of_busy, [{"n": sent}], 120) == [{"n": sent}]


def test_messages_are_analysed_again_on_request(stack: Stack) -> None:
    key = stack.make_chatbot("renewed")
    post(stack, key, conversation("renewed-1", turns=2))
    wait_rows(stack, "renewed-1", 11)
    done = stack.openbat("reanalyze", "--chatbot", "renewed", "--since", "2020-01-01")
    assert done.stdout.strip() == "conversations=1 messages=4"
    wait_until(
        lambda: all(row["run"] for row in rows(stack, "renewed-1", "message_id, kind, run")),
        20,
        "rows of the re-analysis",
    )
    assert len(rows(stack, "renewed-1")) == 11
