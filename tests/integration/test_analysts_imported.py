"""The examples of docs/analysts.md after an import through the whole pipeline, and its export.

Of OPENBAT_TEST_CONVERSATIONS where it is set, else of made-up conversations.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbat.clickhouse import clickhouse_client
from tests.conversations import real_or_made_up, write_lines
from tests.integration.test_analysts import EXAMPLES, ask
from tests.stack import Stack, local_stack

IMPORTED, USERS = 150, 20

MAY_BE_EMPTY = {
    "Conversations whose sentiment fell": "nobody has to get angry",
    "Unresolved conversations by intent": "nobody has to want anything",
    "Top topics, and their trend": "nobody has to name one",
    "Conversations that went on after they were judged": "all are quiet",
    "Messages that wait for their analysis": "all have theirs",
    "How far analyzers agree": "one of them ran",
}


def captures() -> list[dict[str, Any]]:
    """Return conversations, each with a user, whoever sent them."""
    return [
        {"user": {"id": f"user-{number % USERS}", "plan": "pro"}, **conversation}
        for number, conversation in enumerate(real_or_made_up(IMPORTED))
    ]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("imported")
    with local_stack(directory, OPENBAT_ANALYSIS_WORKERS="1", OPENBAT_QUIET_SECONDS="2") as made:
        yield made


def test_the_twenty_queries_tell_what_was_imported(stack: Stack, tmp_path: Path) -> None:
    sent = captures()
    sent_messages = write_lines(tmp_path / "sent.jsonl", sent)
    roles = Counter(message["role"] for each in sent for message in each["messages"])
    done = stack.openbat("import", str(tmp_path / "sent.jsonl"))
    assert f"stored={sent_messages} duplicates=0 provisional=0 failed=0" in done.stdout
    for sql, expected in (
        ("SELECT count() AS n FROM openbat.messages", sent_messages),
        ("SELECT count() AS n FROM openbat.message_sentiments", roles["user"]),
        ("SELECT count() AS n FROM openbat.behaviours", roles["assistant"]),
        ("SELECT count() AS n FROM openbat.resolutions", len(sent)),
    ):
        assert stack.wait_sql(sql, [{"n": expected}], 90) == [{"n": expected}], sql
    client = clickhouse_client(stack.state["clickhouse_url"])
    ((chatbot_id,),) = ask(client, "SELECT DISTINCT chatbot_id FROM openbat.messages")
    first = sent[0]
    names = {
        "conv_1": first["conversationId"],
        "msg_1": next(each["id"] for each in first["messages"] if each["role"] == "user"),
        "00000000-0000-0000-0000-000000000001": str(chatbot_id),
    }
    found = {
        title: ask(client, re.sub("|".join(names), lambda match: names[match[0]], sql))
        for title, sql in EXAMPLES.items()
    }
    client.close()

    assert {title for title, rows in found.items() if not rows} <= MAY_BE_EMPTY.keys()
    for title in ("Messages that wait for their analysis", "How far analyzers agree"):
        assert found[title] == []

    def total(title: str, column: int) -> int:
        return sum(row[column] for row in found[title])

    assert total("Messages a day, by chatbot", 2) == sent_messages
    assert total("Messages a day, by chatbot", 3) == roles["user"]
    assert total("The busiest hours", 1) == sent_messages
    users = {each["user"]["id"] for each in sent}
    assert len(users) <= total("Active users a day", 2) <= 2 * len(users)
    assert total("Users who came back", 1) == len(users)
    assert total("Who talks most", 2) == len(sent)
    assert total("Who talks most", 3) == sent_messages
    assert total("New and continued conversations a day", 2) == len(sent)
    assert total("How long conversations are", 1) == len(sent)
    assert max(row[4] for row in found["How long conversations are"]) == max(
        len(each["messages"]) for each in sent
    )
    pairs = Counter(
        (one["role"], other["role"])
        for each in sent
        for one, other in itertools.pairwise(each["messages"])
    )
    assert total("How fast assistants answer", 1) == pairs["user", "assistant"]
    assert [row[1:] for row in found["A conversation as it was said"]] == [
        (each["role"], each["content"]) for each in first["messages"]
    ]
    assert total("Sentiment over time, by chatbot and plan", 3) == roles["user"]
    assert total("How often assistants over-apologize, by plan", 1) == roles["assistant"]
    assert total("Share of messages that were flagged", 1) == roles["user"]
    assert total("Unresolved conversations by intent", 1) <= len(sent)
    assert [row[0] for row in found["Everything that is known of one message"]] == [
        "flags",
        "intent",
        "sentiment",
        "topics",
    ]
    assert total("What a query would read", 3) >= sent_messages


def test_what_was_imported_is_exported(stack: Stack, tmp_path: Path) -> None:
    (sent,) = stack.sql("SELECT count() AS n FROM openbat.messages")
    done = stack.openbat(
        "export", "--since", "2026-01-01", "--chatbot", "demo", "--out", str(tmp_path)
    )
    assert f" rows={sent['n']} " in done.stdout
    files = f"file('{tmp_path}/messages-*.parquet')"
    counted = f"SELECT count() AS n, uniqExact(conversation_id, message_id) AS ids FROM {files}"
    assert stack.sql(counted) == [{"n": sent["n"], "ids": sent["n"]}]
    refused = stack.openbat(
        "export",
        "--since",
        "2026-01-01",
        "--chatbot",
        "nobody",
        "--out",
        str(tmp_path),
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("openbat: ")
    assert "nobody" in refused.stderr


def test_an_engine_without_users_says_so_and_shows_no_secret(stack: Stack) -> None:
    secret = "correct-horse"
    done = stack.openbat("migrate", check=False, OPENBAT_CLICKHOUSE_READER_PASSWORD=secret)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("openbat: the user openbat_analyst is not made, ClickHouse refuses: ")
    assert secret not in done.stdout + done.stderr
