"""What the roles of grants.sql may do, decided by ClickHouse's own access control.

The local engine keeps no roles of SQL, but takes them from a file of users as a server does: the
statements under test are copied into one, and its only user is given a role.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import httpx
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from openbat.clickhouse import clickhouse_client
from sinks.migrate import GRANTS, grant, migrate, statements
from sinks.writer import ClickHouseWriter
from tests.integration.test_analysts import EXAMPLES
from tests.stack import free_port, process, wait_until
from tests.unit import test_analysis_rows
from tests.unit.test_sinks import batch_of, messages, record, state

ACCESS_DENIED, NO_STORAGE, UNKNOWN_ROLE = 497, 514, 511

_MAIN = """
import sys
from pathlib import Path
import chdb
from openbat.local.clickhouse import serve

path, port, config = sys.argv[1:]
connect = chdb.connect
chdb.connect = lambda database: connect(f"{database}?config-file={config}")
serve(Path(path), None, "127.0.0.1", int(port), lambda: None)
"""


def users(grants: str, roles: str = "", more: str = "") -> str:
    """Return a file of users whose only one, `default`, has these grants."""
    return (
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas>"
        f"<roles>{roles}</roles><users><default><password/><networks><ip>::/0</ip></networks>"
        f"<profile>default</profile><quota>default</quota>{more}{grants}</default></users>"
        "</clickhouse>"
    )


def roles_of(sql: str) -> str:
    """Return the roles that statements make and grant to, as a file of users has them."""
    granted: dict[str, list[str]] = {}
    for statement in statements(sql):
        if statement.startswith("CREATE ROLE IF NOT EXISTS "):
            granted[statement.removeprefix("CREATE ROLE IF NOT EXISTS ")] = []
        else:
            what, _, role = statement.rpartition(" TO ")
            granted[role].append(what)
    assert granted.keys() == {"openbat_writer", "openbat_reader"}
    assert all(granted.values())
    return "".join(f"<{role}>{_grants(*what)}</{role}>" for role, what in granted.items())


def _grants(*queries: str) -> str:
    return f"<grants>{''.join(f'<query>{escape(query)}</query>' for query in queries)}</grants>"


ADMINISTRATOR = users("", more="<access_management>1</access_management>")


def with_role(role: str) -> str:
    return users(_grants(f"GRANT {role}"), roles_of(GRANTS.read_text()))


@contextlib.contextmanager
def engine(directory: Path, content: str) -> Iterator[Any]:
    """Serve the database of a directory with these users; yields a client."""
    users_file, config = directory / "users.xml", directory / "config.xml"
    users_file.write_text(content)
    config.write_text(f"<clickhouse><users_config>{users_file}</users_config></clickhouse>")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", _MAIN, str(directory / "data"), str(port), str(config)]

    def is_up() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/?query=SELECT+1").status_code == 200
        return False

    with process(command, os.environ, directory / "log"):
        wait_until(is_up, 60, "the engine")
        client = clickhouse_client(url)
        yield client
        client.close()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a migrated database of one message."""
    directory = tmp_path_factory.mktemp("roles")
    with engine(directory, ADMINISTRATOR) as client:
        migrate(client)
        client.command("INSERT INTO openbat.message_rows (message_id) VALUES ('first')")
        # Parsed and allowed, but there is nowhere to keep a role; said so, not hidden.
        assert "no writeable access storage" in grant(client)
        for statement in statements(GRANTS.read_text()):
            with pytest.raises(DatabaseError) as refused:
                client.command(statement)
            assert refused.value.code in {NO_STORAGE, UNKNOWN_ROLE}
    return directory


def assert_denied(client: Any, *queries: str) -> None:
    for query in queries:
        with pytest.raises(DatabaseError) as refused:
            client.command(query)
        assert refused.value.code == ACCESS_DENIED, query


CHANGES = (
    "ALTER TABLE openbat.message_rows DELETE WHERE 1",
    "ALTER TABLE openbat.message_rows UPDATE content = '' WHERE 1",
    "ALTER TABLE openbat.message_rows ADD COLUMN more String",
    "TRUNCATE TABLE openbat.message_rows",
    "DROP TABLE openbat.conversation_rows",
    "DROP VIEW openbat.messages",
    "DROP DATABASE openbat",
    "OPTIMIZE TABLE openbat.message_rows FINAL",
    "CREATE TABLE openbat.mine (a Int8) ENGINE = Memory",
    "CREATE TABLE default.mine (a Int8) ENGINE = Memory",
    "INSERT INTO openbat.migrations (name) VALUES ('0001')",
    "SELECT name FROM openbat.migrations",
    "CREATE USER mine IDENTIFIED BY 'mine'",
    "SELECT * FROM file('/etc/hostname', LineAsString)",
    "SELECT * FROM url('http://127.0.0.1:1', LineAsString)",
)


async def test_a_writer_adds_rows_and_does_nothing_else(database: Path) -> None:
    with engine(database, with_role("openbat_writer")) as client:
        batch = batch_of(record((state(), messages("hi", "there"))))
        analyses = test_analysis_rows.batch_of(test_analysis_rows.record(test_analysis_rows.RESULT))
        for each in (batch, analyses):
            assert await ClickHouseWriter(client).write(each) == []
        assert_denied(
            client,
            *CHANGES,
            "SELECT content FROM openbat.message_rows",
            "SELECT count() FROM openbat.messages",
            "SELECT user_email FROM openbat.conversations",
            "SELECT reasoning FROM openbat.analysis_rows",
            "SELECT reasoning FROM openbat.latest_analyses",
        )
    with engine(database, with_role("openbat_reader")) as client:
        rows = client.query("SELECT content FROM openbat.messages WHERE message_id != 'first'")
        assert sorted(rows.result_rows) == [("hi",), ("there",)]
        assert client.query("SELECT count() FROM openbat.conversations").result_rows == [(1,)]
        for sql in EXAMPLES.values():
            client.query(sql)
        for view in ("analyses", "message_sentiments"):
            rows = client.query(f"SELECT score FROM openbat.{view}")
            assert rows.result_rows == [(-0.5,)]


def test_a_reader_reads_and_changes_nothing(database: Path) -> None:
    with engine(database, with_role("openbat_reader")) as client:
        rows = client.query("SELECT message_id FROM openbat.messages ORDER BY position LIMIT 1")
        assert rows.result_rows == [("first",)]
        assert_denied(
            client, *CHANGES, "INSERT INTO openbat.message_rows (message_id) VALUES ('mine')"
        )
