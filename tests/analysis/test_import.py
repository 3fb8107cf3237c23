"""An import with the default settings: each user message has one sentiment, whatever is killed."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conversations import real_or_made_up, write_lines
from tests.report import Report
from tests.stack import OPENBAT, Stack, local_stack, process, wait_until

FULL_CONVERSATIONS, SHORT_CONVERSATIONS = 1_000_000, 700
FULL_KILLS, SHORT_KILLS = 6, 2
KILL_SECONDS = 4.0
SECONDS_PER_10_000 = 120.0

SENTIMENTS = """
SELECT count() AS rows, uniqExact(conversation_id, message_id) AS messages
FROM openbat.analyses WHERE kind = 'sentiment'
"""
OWED = """
SELECT count() AS owed FROM openbat.messages WHERE role = 'user'
AND (conversation_id, message_id) NOT IN
    (SELECT conversation_id, message_id FROM openbat.analyses WHERE kind = 'sentiment')
"""


@pytest.mark.timeout(1800)
def test_each_user_message_of_an_import_has_one_sentiment(
    full: bool, report: Report, tmp_path: Path
) -> None:
    found = real_or_made_up(FULL_CONVERSATIONS if full else SHORT_CONVERSATIONS)
    file = tmp_path / "conversations.jsonl"
    messages = write_lines(file, found)
    users = sum(each["role"] == "user" for said in found for each in said["messages"])
    within = max(1.0, messages / 10_000) * SECONDS_PER_10_000
    kills = FULL_KILLS if full else SHORT_KILLS
    with local_stack(tmp_path / "stack", OPENBAT_ANALYSIS_WORKERS="1") as stack:
        output = tmp_path / "import.log"
        began = time.monotonic()
        with process([*OPENBAT, "import", str(file)], stack.environment, output) as importing:
            for _ in range(kills):
                time.sleep(KILL_SECONDS)  # at any moment of its work
                _kill(stack)
            wait_until(lambda: importing.poll() is not None, 900, "the end of the import")
            assert importing.poll() == 0, output.read_text()
        expected = [{"rows": users, "messages": users}]
        counted = stack.wait_sql(SENTIMENTS, expected, within)
        seconds = time.monotonic() - began
        owed = stack.sql(OWED)[0]["owed"]
    exact = f"{users}"
    report.add("messages imported, with analysis by the default settings", messages)
    report.add("kill -9 of the analysis worker meanwhile", kills)
    for what, value in counted[0].items():
        report.add(f"user messages' sentiments, {what}", value, bound=exact, holds=value == users)
    report.add("user messages without one", owed, bound="0", holds=owed == 0)
    report.add(
        "from the import's start to the last of them", seconds, "s",
        bound=f"at most {within:.0f}", holds=seconds <= within,
    )  # fmt: skip
    assert counted == expected
    assert owed == 0
    assert seconds <= within


def _kill(stack: Stack) -> None:
    (pid,) = stack.pids("analysis")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: stack.pids("analysis") not in ([pid], []), 30, "another analysis worker")
