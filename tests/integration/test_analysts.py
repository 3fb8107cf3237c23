"""Every example of docs/analysts.md on ClickHouse's engine, and what the views hold."""

import re
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from schemas import topics
from schemas.analyses import WHOLE_CONVERSATION, Analysed, Analysis, Finding, analyses_codec
from schemas.analysis import Kind
from schemas.capture import Role
from schemas.dead_letters import Source
from schemas.records import Change, ConversationState, NewMessage, encode, messages_codec
from sinks.analysis_rows import AnalysisBatch
from sinks.migrate import migrate
from sinks.rows import RowBatch
from sinks.writer import ClickHouseWriter
from tests.stack import ROOT

pytest.importorskip("chdb")

_BLOCK = re.compile(r"^### (.+?)$.*?^```sql\n(.+?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = dict(_BLOCK.findall((ROOT / "docs" / "analysts.md").read_text()))

SHOP, BANK = (uuid.UUID(int=number) for number in (1, 2))
SECOND = 1_000_000
DAY = 86_400 * SECOND
# An hour ago, so that nothing that is said lies ahead of the server's clock.
NOW = time.time_ns() // 1000 - 3600 * SECOND


def day(days_ago: int) -> date:
    return datetime.fromtimestamp((NOW - days_ago * DAY) / SECOND, UTC).date()


class Conversation:
    """A conversation of two messages as it begins, `msg_1` of the user and `msg_2` the answer.

    A message is sent two seconds after the one before, and those are received at once.
    """

    def __init__(
        self, number: int, chatbot: uuid.UUID, plan: str, days_ago: int, user: str | None = None
    ) -> None:
        self.chatbot_id, self.id = chatbot.bytes, number.to_bytes(16)
        self.at = NOW - days_ago * DAY
        self._name, self._plan, self._user = f"conv_{number}", plan, user
        self.said: list[NewMessage] = []
        self.say("user")
        self.say("assistant")

    def say(self, role: Role, later: int = 0) -> None:
        """Add a message; `later` is microseconds after the beginning."""
        number = len(self.said) + 1
        at = self.at + later + number
        sent_at = at + 2 * number * SECOND
        self.said.append(NewMessage(f"msg_{number}", role, "text", sent_at, at, number))

    def change(self) -> Change:
        count = len(self.said)
        user = {"plan": self._plan} | ({"id": self._user} if self._user else {})
        state = ConversationState(
            self.chatbot_id, self.id, self._name, count, count, count, self.at, self.at,
            self.at, self.at, {"custom": {"plan": self._plan}, "user": user},
        )  # fmt: skip
        return Change(self.id, msgspec.Raw(encode(state)), msgspec.Raw(encode(self.said)))

    def found(self, message: int, kind: Kind, label: str = "", **more: Any) -> Analysed:
        """Return a result of a message, or where that is 0 of the conversation."""
        of = self.said[message - 1]
        said = {name: more.pop(name) for name in ("labels", "score", "reasoning") if name in more}
        given = {
            "analyzer": "offline", "version": "1", "analysed_at": of.received_at,
            "revision": 0 if message else len(self.said), **more,
        }  # fmt: skip
        result = Analysis(
            of.id if message else WHOLE_CONVERSATION, received_at=of.received_at,
            position=of.position, findings=(Finding(kind, label, **said),), **given,
        )  # fmt: skip
        return Analysed(self.chatbot_id, self.id, [result])


FIRST = Conversation(1, SHOP, "free", 1, user="ann")
FIRST.say("user")
SECOND_ONE = Conversation(2, SHOP, "pro", 8, user="ann")
THIRD = Conversation(3, BANK, "free", 1, user="bob")
GONE_ON = Conversation(4, BANK, "pro", 0)


def first_results() -> list[Analysed]:
    """Return what was found at first; of GONE_ON no message was analysed yet."""
    return [
        FIRST.found(1, "sentiment", "positive", score=0.5),
        FIRST.found(3, "sentiment", "neutral", score=0.0),
        SECOND_ONE.found(1, "sentiment", "neutral", score=0.25),
        THIRD.found(1, "sentiment", "negative", score=-0.75, reasoning="it says awful"),
        FIRST.found(1, "intent", "none"),
        FIRST.found(3, "intent", "booking"),
        SECOND_ONE.found(1, "intent", "booking"),
        THIRD.found(1, "intent", "complaint"),
        FIRST.found(1, "topics", labels=["price", "delivery"]),
        FIRST.found(3, "topics", labels=["price"]),
        SECOND_ONE.found(1, "topics", labels=["delivery"]),
        THIRD.found(1, "topics"),
        FIRST.found(1, "flags"),
        FIRST.found(3, "flags", labels=["churn-risk", "abuse"]),
        SECOND_ONE.found(1, "flags"),
        THIRD.found(1, "flags", labels=["abuse"]),
        FIRST.found(2, "behaviour", "over-apologizing"),
        SECOND_ONE.found(2, "behaviour", "helpful"),
        THIRD.found(2, "behaviour", "dodging"),
        FIRST.found(0, "resolution", "fully", revision=2),
        FIRST.found(0, "resolution", "unresolved"),
        SECOND_ONE.found(0, "resolution", "partially"),
        THIRD.found(0, "resolution", "unresolved"),
        GONE_ON.found(0, "resolution", "fully", revision=1),
    ]


def later_results() -> list[Analysed]:
    """Return what a re-analysis by another analyzer said of the messages of FIRST."""
    more: dict[str, Any] = {"analyzer": "llm", "version": "m1", "run": 7, "analysed_at": 1}
    return [
        FIRST.found(1, "sentiment", "positive", score=0.75, **more),
        FIRST.found(3, "sentiment", "negative", score=-0.5, **more),
    ]


async def write(client: Any, *batches: RowBatch | AnalysisBatch) -> None:
    for batch in batches:
        assert await ClickHouseWriter(client).write(batch) == []


def rows_of(*conversations: Conversation) -> RowBatch:
    batch = RowBatch()
    batch.add(messages_codec.encode([each.change() for each in conversations]), 0, 0)
    return batch


def analyses_of(*found: Analysed) -> AnalysisBatch:
    batch = AnalysisBatch()
    batch.add(analyses_codec.encode(list(found)), 0, 0)
    return batch


def answers(client: Any) -> dict[str, list[tuple[Any, ...]]]:
    return {title: ask(client, sql) for title, sql in EXAMPLES.items() if title != READ_AHEAD}


def ask(client: Any, sql: str) -> list[tuple[Any, ...]]:
    return list(client.query(sql).result_rows)


@pytest.fixture
def client(database: Any) -> Any:
    """Return a client of a database that is empty but for its schema."""
    migrate(database)
    return database


@pytest.fixture
async def examples(client: Any) -> Any:
    """Return a client of the data set, of which half came twice and nothing is merged."""
    client.command("SYSTEM STOP MERGES")
    await write(client, rows_of(FIRST, SECOND_ONE, THIRD, GONE_ON))
    await write(client, analyses_of(*later_results()), analyses_of(*first_results()))
    await write(client, analyses_of(*first_results()[::2]), rows_of(FIRST))
    return client


READ_AHEAD = "What a query would read"
"""Its answer is about parts and marks, which are ClickHouse's own affair."""

EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "Messages a day, by chatbot": [
        (day(8), SHOP, 2, 1),
        (day(1), SHOP, 3, 2),
        (day(1), BANK, 2, 1),
        (day(0), BANK, 2, 1),
    ],
    "The busiest hours": [(datetime.fromtimestamp(NOW / SECOND, UTC).hour, 9)],
    "Active users a day": [(day(8), SHOP, 1), (day(1), SHOP, 1), (day(1), BANK, 1)],
    "Users who came back": [(SHOP, 1, 1, 1.0), (BANK, 1, 0, 0.0)],
    "Who talks most": [(SHOP, "ann", 2, 5), (BANK, "bob", 1, 2)],
    "New and continued conversations a day": [
        (day(8), SHOP, 1, 0),
        (day(1), SHOP, 1, 0),
        (day(1), BANK, 1, 0),
        (day(0), BANK, 1, 0),
    ],
    "How long conversations are": [(SHOP, 2, 3, 3, 3), (BANK, 2, 2, 2, 2)],
    "How fast assistants answer": [(SHOP, 1, 2.0, 2.0), (BANK, 2, 2.0, 2.0)],
    "A conversation as it was said": [
        (1, "user", "text"),
        (2, "assistant", "text"),
        (3, "user", "text"),
    ],
    "Sentiment over time, by chatbot and plan": [
        (day(8), SHOP, "pro", 1, 0.25, 0),
        (day(1), SHOP, "free", 2, 0.12, 1),
        (day(1), BANK, "free", 1, -0.75, 1),
    ],
    "Top topics, and their trend": [("price", 2, 0, 2), ("delivery", 1, 1, 0)],
    "Unresolved conversations by intent": [("booking", 2, 1, 0.5), ("complaint", 1, 1, 1.0)],
    "How often assistants over-apologize, by plan": [("free", 2, 1, 0.5), ("pro", 1, 0, 0.0)],
    "Conversations whose sentiment fell": [("conv_1", 0.75, -0.5)],
    "Share of messages that were flagged": [
        (SHOP, 3, 1, 0.33, ["abuse", "churn-risk"]),
        (BANK, 1, 1, 1.0, ["abuse"]),
    ],
    "How far analyzers agree": [("llm m1", "offline 1", 2, 0.5, 0.38)],
    "Everything that is known of one message": [
        ("flags", "offline", "1", 0, "", [], None, ""),
        ("intent", "offline", "1", 0, "none", [], None, ""),
        ("sentiment", "llm", "m1", 7, "positive", [], 0.75, ""),
        ("sentiment", "offline", "1", 0, "positive", [], 0.5, ""),
        ("topics", "offline", "1", 0, "", ["price", "delivery"], None, ""),
    ],
    "Messages that wait for their analysis": [("conv_4", "msg_1")],
    "Conversations that went on after they were judged": [("conv_4", "fully")],
}


def test_every_example_is_tested() -> None:
    assert EXAMPLES.keys() == EXPECTED.keys() | {READ_AHEAD}
    assert len(EXAMPLES) == 20


async def test_every_example_answers_what_is_known(examples: Any) -> None:
    assert answers(examples) == EXPECTED
    (parts,) = ask(
        examples, "SELECT count() FROM system.parts WHERE active AND table = 'analysis_rows'"
    )
    assert parts[0] > 2, "nothing was to be merged"
    examples.command("SYSTEM START MERGES")
    for table in ("message_rows", "conversation_rows", "analysis_rows", "activity_rows"):
        examples.command(f"OPTIMIZE TABLE openbat.{table} FINAL")
    assert answers(examples) == EXPECTED


async def test_what_a_query_would_read_is_told_before_it_is_run(examples: Any) -> None:
    """At least the rows that it counts, of the one table that it is about."""
    found = ask(examples, EXAMPLES[READ_AHEAD])
    assert {row[:2] for row in found} == {("openbat", "message_rows")}
    assert sum(row[3] for row in found) >= 5


ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["as made", "the other way round"])


@ORDERS
async def test_of_one_key_the_newest_run_is_kept_and_of_it_the_latest_answer(
    client: Any, order: int
) -> None:
    answers = [
        FIRST.found(1, "intent", "late", run=0, analysed_at=9),
        FIRST.found(1, "intent", "early", run=2, analysed_at=3),
        FIRST.found(1, "intent", "newest", run=2, analysed_at=4),
    ]
    for answer in answers[::order]:
        await write(client, analyses_of(answer), analyses_of(answer))
    for _ in range(2):
        assert ask(client, "SELECT label, run FROM openbat.analyses") == [("newest", 2)]
        assert ask(client, "SELECT intent FROM openbat.message_intents") == [("newest",)]
        client.command("OPTIMIZE TABLE openbat.analysis_rows FINAL")
    assert ask(client, "SELECT count() FROM openbat.analysis_rows") == [(1,)]


@ORDERS
async def test_the_newest_revision_of_a_conversation_counts_whoever_judged_the_one_before(
    client: Any, order: int
) -> None:
    answers = [
        FIRST.found(0, "resolution", "fully", revision=2, run=5, version="2"),
        FIRST.found(0, "resolution", "partially", revision=3, analysed_at=5),
        FIRST.found(0, "resolution", "unresolved", revision=3, analysed_at=6, version="2"),
    ]
    for answer in answers[::order]:
        await write(client, analyses_of(answer))
    assert ask(client, "SELECT resolution, revision FROM openbat.resolutions") == [
        ("unresolved", 3)
    ]
    found = ask(client, "SELECT label FROM openbat.analyses ORDER BY revision, analysed_at")
    assert found == [("fully",), ("partially",), ("unresolved",)]


async def test_a_message_that_is_new_again_in_another_month_has_one_result(client: Any) -> None:
    """As after its id was forgotten."""
    again = Conversation(1, SHOP, "free", 100)
    await write(client, analyses_of(FIRST.found(1, "sentiment", "positive", score=1.0)))
    await write(client, analyses_of(again.found(1, "sentiment", "negative", score=-1.0)))
    for view in ("analyses", "latest_analyses", "message_sentiments"):
        assert ask(client, f"SELECT score FROM openbat.{view}") == [(1.0,)], view


async def test_the_largest_values_are_held_as_they_are(client: Any) -> None:
    largest = FIRST.found(
        1, "topics", "é" * 64, version="v" * 64, analyzer="a" * 64, score=-1.0,
        labels=["ü" * 64] * 100, reasoning="\0📦" * 250, run=2**62, revision=2**62,
    )  # fmt: skip
    largest.results[0].position = 2**64 - 1
    largest.results[0].message_id = "'\\" * 100
    await write(client, analyses_of(largest))
    (finding,) = largest.results[0].findings
    columns = msgspec.structs.asdict(largest.results[0]) | msgspec.structs.asdict(finding)
    del columns["findings"]
    sql = f"SELECT {', '.join(columns)} FROM openbat.analyses"
    (row,) = client.query(sql).named_results()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for name in ("received_at", "analysed_at"):
        given = epoch + timedelta(microseconds=columns[name])
        assert row[name].replace(tzinfo=UTC) == given
        columns[name] = row[name]
    assert row == columns


async def test_a_row_that_is_never_taken_is_a_record_that_can_be_written_later(
    client: Any,
) -> None:
    client.command(
        "ALTER TABLE openbat.analysis_rows ADD CONSTRAINT no_smalltalk CHECK label != 'smalltalk'"
    )
    batch = analyses_of(
        FIRST.found(1, "intent", "search"),
        THIRD.found(1, "intent", "smalltalk"),
        GONE_ON.found(1, "intent", "booking"),
    )
    (rejected,) = await ClickHouseWriter(client).write(batch)
    assert rejected.letter.source == Source(topics.ANALYSES, 0, 0, 1)
    sql = "SELECT intent FROM openbat.message_intents ORDER BY intent"
    assert ask(client, sql) == [("booking",), ("search",)]
    client.command("ALTER TABLE openbat.analysis_rows DROP CONSTRAINT no_smalltalk")
    again = AnalysisBatch()
    again.add(rejected.value, 0, 1)
    await write(client, again)
    assert ask(client, sql) == [("booking",), ("search",), ("smalltalk",)]
