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
from sinks.reader import LIMITS, PROFILE, ReaderError, make_reader, reader_statements
from sinks.writer import ClickHouseWriter
from tests.integration.test_analysts import EXAMPLES
from tests.stack import free_port, process, wait_until
from tests.unit import test_analysis_rows
from tests.unit.test_sinks import batch_of, messages, record, state

ACCESS_DENIED, NO_STORAGE, UNKNOWN_ROLE, UNKNOWN_USER = 497, 514, 511, 192
READ_ONLY, OUT_OF_BOUNDS, READ_ONLY_STORAGE = 164, 452, 495
UNKEPT = {NO_STORAGE, READ_ONLY_STORAGE, UNKNOWN_ROLE, UNKNOWN_USER}
"""What is said to statements that are fine, where users are kept in a file."""

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


OWNER = "owner"
"""Who ran the migrations: the view that fills the rollups works in the name of this user."""


def users(grants: str, roles: str = "", more: str = "", profile: str = "") -> str:
    """Return a file of users: who asks is `default`, and has these grants."""
    common = "<networks><ip>::/0</ip></networks><quota>default</quota>"
    return (
        f"<clickhouse><profiles><free/><default>{profile}</default></profiles>"
        f"<quotas><default/></quotas><roles>{roles}</roles><users>"
        f"<default><password/>{common}<profile>default</profile>{more}{grants}</default>"
        f"<{OWNER}><no_password/>{common}<profile>free</profile></{OWNER}></users></clickhouse>"
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
        # On a server it is so by itself: who migrates is another user than the workers.
        client.command(
            f"ALTER TABLE openbat.activity_feed MODIFY SQL SECURITY DEFINER DEFINER = {OWNER}"
        )
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
        counted = client.query("SELECT sum(messages) FROM openbat.messages_daily")
        assert counted.result_rows == [(3,)]
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


def profile_of(limits: dict[str, str]) -> str:
    """Return a profile's limits as a file of users has them."""
    values, constraints = "", ""
    for name, limit in limits.items():
        value, *bounds = limit.split()
        values += f"<{name}>{value}</{name}>"
        if bounds:
            pairs = zip(bounds[::2], bounds[1::2], strict=True)
            inner = "".join(f"<{kind.lower()}>{bound}</{kind.lower()}>" for kind, bound in pairs)
            constraints += f"<{name}>{inner}</{name}>"
    return f"{values}<constraints>{constraints}</constraints>"


def test_an_analyst_asks_all_within_limits(database: Path) -> None:
    reading = users(
        _grants("GRANT openbat_reader"), roles_of(GRANTS.read_text()), profile=profile_of(LIMITS)
    )
    with engine(database, reading) as client:
        for sql in EXAMPLES.values():
            client.query(sql)
        client.query("SELECT 1", settings={"max_execution_time": 600, "max_threads": 1})
        for name in ("max_execution_time", "max_memory_usage", "max_concurrent_queries_for_user"):
            for value in (0, 10**12):
                with pytest.raises(DatabaseError) as refused:
                    client.command(f"SET {name} = {value}")
                assert refused.value.code == OUT_OF_BOUNDS, name
        with pytest.raises(DatabaseError) as refused:
            client.command("SET readonly = 0")
        assert refused.value.code == READ_ONLY
        assert_denied(client, "INSERT INTO openbat.message_rows (message_id) VALUES ('mine')")


def test_the_statements_for_an_analyst_are_understood(tmp_path: Path) -> None:
    """Nothing but the place where users are kept is missing; a profile that is there serves all."""
    profiled = users("", more="<access_management>1</access_management>").replace(
        "<free/>", f"<free/><{PROFILE}/>"
    )
    with engine(tmp_path, profiled) as client:
        for statement in reader_statements("secret-of-analysts", "0" * 32):
            with pytest.raises(DatabaseError) as refused:
                client.command(statement)
            assert refused.value.code in UNKEPT, statement
        with pytest.raises(ReaderError, match="storage is readonly"):
            make_reader(client, "secret-of-analysts")
