"""Rollups on ClickHouse's engine: what is written twice, late, or was there before them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sinks.migrate import MIGRATIONS, migrate
from sinks.writer import ClickHouseWriter
from tests.integration.test_analysts import (
    DAY,
    NOW,
    SECOND,
    SHOP,
    Conversation,
    ask,
    day,
    rows_of,
    write,
)

pytest.importorskip("chdb")

ROLLUPS = "0003_rollups.sql"
VIEWS = (
    "messages_hourly", "messages_daily", "conversations_hourly", "conversations_daily",
    "users_hourly", "users_daily",
)  # fmt: skip


@pytest.fixture
def client(database: Any) -> Any:
    """Return a client of a database that merges nothing by itself."""
    migrate(database)
    database.command("SYSTEM STOP MERGES")
    return database


def rollups(client: Any) -> dict[str, list[tuple[Any, ...]]]:
    return {view: ask(client, f"SELECT * FROM openbat.{view} ORDER BY ALL") for view in VIEWS}


def from_rows(client: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the rollups have to be, from the views that show each row once."""
    source = (
        "FROM openbat.messages AS m "
        "INNER JOIN openbat.conversations AS c USING (chatbot_id, conversation_id)"
    )
    found = {}
    for name, period in (("hourly", "toStartOfHour"), ("daily", "toDate")):
        said, begun = f"{period}(m.received_at, 'UTC')", f"{period}(c.created_at, 'UTC')"
        counted = {
            "messages": "m.role, count()",
            "conversations": f"uniqExact(c.conversation_id), uniqExactIf(c.conversation_id, "
            f"{begun} = at)",
            "users": "uniqExact(c.user_id)",
        }
        for what, columns in counted.items():
            condition = "WHERE c.user_id IS NOT NULL" if what == "users" else ""
            found[f"{what}_{name}"] = ask(
                client,
                f"SELECT chatbot_id, {said} AS at, {columns} {source} {condition} "
                f"GROUP BY chatbot_id, at{', m.role' if what == 'messages' else ''} ORDER BY ALL",
            )
    return found


def talks() -> list[Conversation]:
    """Return conversations of three users and of nobody, some of which go on in later hours."""
    made = [
        Conversation(number, SHOP, "free", number % 3, user=[None, "ann", "bob", "eve"][number % 4])
        for number in range(1, 13)
    ]
    for conversation in made[::2]:
        conversation.say("user", 2 * 3600 * SECOND)
        conversation.say("system", 26 * 3600 * SECOND)
    return made


async def test_what_is_written_again_and_again_counts_once(client: Any) -> None:
    every = talks()
    await write(client, rows_of(*every))
    once = rollups(client)
    assert once == from_rows(client)
    assert sum(row[3] for row in once["messages_hourly"]) == 12 * 2 + 6 * 2
    assert sum(row[3] for row in once["conversations_daily"]) == 12
    # Again in other batches, as after a kill: all, each by itself, some.
    await write(client, rows_of(*every), *(rows_of(each) for each in every), rows_of(*every[::3]))
    assert rollups(client) == once
    client.command("SYSTEM START MERGES")
    client.command("OPTIMIZE TABLE openbat.activity_rows FINAL")
    assert rollups(client) == once
    await write(client, rows_of(*every[::2]))
    assert rollups(client) == once == from_rows(client)


async def test_a_conversation_is_new_once_and_active_in_each_period(client: Any) -> None:
    talk = Conversation(1, SHOP, "free", 2, user="ann")
    await write(client, rows_of(talk))
    talk.say("user", DAY)
    await write(client, rows_of(talk), rows_of(talk))
    assert ask(client, "SELECT uniqExact(revision) FROM openbat.conversation_rows") == [(2,)]
    assert ask(client, "SELECT day, active, new FROM openbat.conversations_daily ORDER BY day") == [
        (day(2), 1, 1),
        (day(1), 1, 0),
    ]


async def test_a_message_that_is_late_counts_when_it_was_received(client: Any) -> None:
    fresh, late = (Conversation(number, SHOP, "free", days) for number, days in ((1, 0), (2, 40)))
    await write(client, rows_of(fresh), rows_of(late))
    sql = "SELECT hour, sum(messages) FROM openbat.messages_hourly GROUP BY hour ORDER BY hour"
    hours = [
        datetime.fromtimestamp(at // SECOND // 3600 * 3600, UTC).replace(tzinfo=None)
        for at in (NOW - 40 * DAY, NOW)
    ]
    found = [(hour.replace(tzinfo=None), count) for hour, count in ask(client, sql)]
    assert found == [(hour, 2) for hour in hours]


async def test_a_user_who_is_sent_later_is_the_user_of_all_that_was_said(client: Any) -> None:
    await write(client, rows_of(Conversation(1, SHOP, "free", 1)))
    assert ask(client, "SELECT * FROM openbat.users_daily") == []
    known = Conversation(1, SHOP, "free", 1, user="ann")
    known.say("user")
    await write(client, rows_of(known))
    assert ask(client, "SELECT day, users FROM openbat.users_daily") == [(day(1), 1)]


async def test_a_migration_counts_what_was_there_before_and_may_run_again(
    database: Any, tmp_path: Path
) -> None:
    for path in sorted(MIGRATIONS.glob("*.sql")):
        if path.name < ROLLUPS:
            (tmp_path / path.name).write_text(path.read_text())
    migrate(database, tmp_path)
    every = talks()
    await ClickHouseWriter(database).write(rows_of(*every))
    assert ROLLUPS in migrate(database)
    expected = from_rows(database)
    assert rollups(database) == expected
    database.command("DELETE FROM openbat.migrations WHERE name = {name:String}", {"name": ROLLUPS})
    assert migrate(database) == [ROLLUPS]
    await write(database, rows_of(*every[:4]))
    assert rollups(database) == expected
