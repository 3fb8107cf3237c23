"""Applies the numbered SQL files that were not applied yet."""

import re
from pathlib import Path
from typing import Any, Protocol

MIGRATIONS = Path(__file__).parent / "migrations"


class Client(Protocol):
    """The part of a clickhouse-connect client that is used here."""

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> Any: ...

    def query(self, query: str) -> Any: ...


def migrate(client: Client, directory: Path = MIGRATIONS) -> list[str]:
    """Apply migrations in the order of their names; return those that were applied now.

    Each statement must be one that may run twice: a migration that was interrupted runs again.
    """
    client.command("CREATE DATABASE IF NOT EXISTS openbat")
    client.command(
        "CREATE TABLE IF NOT EXISTS openbat.migrations (name String, at DateTime DEFAULT now()) "
        "ENGINE = MergeTree ORDER BY name"
    )
    applied = {row[0] for row in client.query("SELECT name FROM openbat.migrations").result_rows}
    todo = [path for path in sorted(directory.glob("*.sql")) if path.name not in applied]
    for path in todo:
        for statement in statements(path.read_text()):
            client.command(statement)
        client.command(
            "INSERT INTO openbat.migrations (name) SELECT {name:String}", {"name": path.name}
        )
    return [path.name for path in todo]


def statements(sql: str) -> list[str]:
    """Split a file into statements: each ends with a semicolon at the end of a line."""
    code = "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
    parts = (part.strip() for part in re.split(r";[ \t]*(?:\n|$)", code))
    return [part for part in parts if part]
