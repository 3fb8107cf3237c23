"""Applies the numbered SQL files that were not applied yet, and makes the roles."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError

MIGRATIONS = Path(__file__).parent / "migrations"
GRANTS = Path(__file__).parent / "grants.sql"

BACKFILL_SECONDS = 3600
"""How long a statement may take: one of them reads all rows that are there."""

_NO_ACCESS_MANAGEMENT = frozenset({495, 497, 514})
"""ClickHouse's error codes: users kept read-only, not ours to manage, or kept nowhere."""


_CREATED = re.compile(
    r"^CREATE (?:TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS openbat\.(\w+)", re.MULTILINE
)


class SchemaError(Exception):
    """Raised where tables or views are gone that a migration made; says how to get them back."""


class Client(Protocol):
    """The part of a clickhouse-connect client that is used here."""

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> Any: ...

    def query(self, query: str) -> Any: ...


def migrate(client: Client, directory: Path = MIGRATIONS) -> list[str]:
    """Apply migrations in the order of their names; return those that were applied now.

    Each statement must be one that may run twice: a migration that was interrupted runs again.

    Raises:
        SchemaError: what was applied before is not all there, and nothing more was applied; or not
            all is there at the end.

    """
    client.command("CREATE DATABASE IF NOT EXISTS openbat")
    client.command(
        "CREATE TABLE IF NOT EXISTS openbat.migrations (name String, at DateTime DEFAULT now()) "
        "ENGINE = MergeTree ORDER BY name"
    )
    applied = {row[0] for row in client.query("SELECT name FROM openbat.migrations").result_rows}
    paths = sorted(directory.glob("*.sql"))
    _check(client, (path for path in paths if path.name in applied))
    todo = [path for path in paths if path.name not in applied]
    for path in todo:
        for statement in statements(path.read_text()):
            client.command(statement)
        client.command(
            "INSERT INTO openbat.migrations (name) SELECT {name:String}", {"name": path.name}
        )
    _check(client, paths)
    return [path.name for path in todo]


def missing(client: Client, paths: Iterable[Path]) -> list[str]:
    """Return which tables and views of these migrations the client's user does not see."""
    there = {
        row[0]
        for row in client.query(
            "SELECT name FROM system.tables WHERE database = 'openbat'"
        ).result_rows
    }
    made = [name for path in paths for name in _CREATED.findall(path.read_text())]
    return [name for name in made if name not in there]


def _check(client: Client, paths: Iterable[Path]) -> None:
    gone = missing(client, paths)
    if gone:
        attach = "; ".join(f"ATTACH TABLE openbat.{name}" for name in gone)
        raise SchemaError(
            f"ClickHouse lacks {', '.join(f'openbat.{name}' for name in gone)}, which a migration "
            f"made: what was detached comes back by `{attach}`, what was dropped from the backup "
            "(docs/operations.md, Tables that are gone); then run `openbat migrate` again"
        )


def grant(client: Client) -> str:
    """Make the roles of grants.sql; return why ClickHouse would not, empty where it did.

    A user that may not manage access is no error: who runs ClickHouse may make the roles by hand.
    """
    try:
        for statement in statements(GRANTS.read_text()):
            client.command(statement)
    except ClickHouseError as error:
        if getattr(error, "code", None) not in _NO_ACCESS_MANAGEMENT:
            raise
        return str(error).splitlines()[0]
    return ""


def statements(sql: str) -> list[str]:
    """Split a file into statements: each ends with a semicolon at the end of a line."""
    code = "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
    parts = (part.strip() for part in re.split(r";[ \t]*(?:\n|$)", code))
    return [part for part in parts if part]
