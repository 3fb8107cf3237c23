"""Tables that are gone, on ClickHouse's engine: what `openbat migrate` and a look say of them."""

from typing import Any

import pytest

from openbat.settings import Settings
from openbat.status.look import look_at_rows
from openbat.status.seen import RowsSeen
from sinks.migrate import MIGRATIONS, SchemaError, migrate, missing
from tests.integration.test_clickhouse_server import Server

pytest.importorskip("chdb")

PATHS = sorted(MIGRATIONS.glob("*.sql"))


@pytest.fixture
def client(database: Any) -> Any:
    """Return a client of a migrated database."""
    migrate(database)
    return database


def look(server: Server) -> RowsSeen:
    return look_at_rows(Settings(clickhouse_url=f"http://127.0.0.1:{server.port}"))


def test_all_that_the_migrations_make_is_known(client: Any) -> None:
    there = client.query("SELECT name FROM system.tables WHERE database = 'openbat'").result_rows
    assert missing(client, PATHS) == []
    client.command("DROP DATABASE openbat SYNC")
    assert {*missing(client, PATHS), "migrations"} == {name for (name,) in there}


@pytest.mark.parametrize("name", ["message_rows", "messages", "conversation_rows", "activity_feed"])
def test_what_was_detached_is_named_and_comes_back_as_is_said(client: Any, name: str) -> None:
    client.command(f"DETACH TABLE openbat.{name}")
    with pytest.raises(SchemaError) as gone:
        migrate(client)
    said = str(gone.value)
    assert said.startswith(f"ClickHouse lacks openbat.{name}, which a migration made: ")
    assert f"`ATTACH TABLE openbat.{name}`" in said
    client.command(f"ATTACH TABLE openbat.{name}")
    assert migrate(client) == []


def test_a_look_tells_what_is_missing_from_what_does_not_answer(
    server: Server, client: Any
) -> None:
    assert look(server) == RowsSeen(0, None, [])
    client.command("DETACH TABLE openbat.users_daily")
    assert look(server) == RowsSeen(0, None, ["users_daily"])
    client.command("DETACH TABLE openbat.message_rows")
    assert look(server) == RowsSeen(None, None, ["message_rows", "users_daily"])
    client.command("DROP DATABASE openbat SYNC")
    found = look(server)
    assert found.message_rows is None
    assert {"message_rows", "conversations", "analyses"} < {*found.missing}
