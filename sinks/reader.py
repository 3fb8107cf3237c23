"""Makes the user that analysts read as: it may SELECT, within limits, and change nothing."""

import hashlib
import secrets
from typing import Any, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError

USER = "openbat_analyst"
"""Not the name of the role: a GRANT to a name that both have goes to the user."""
PROFILE = "openbat_reading"
_GIB = 1 << 30

LIMITS = {
    "readonly": "2",
    "max_execution_time": "300 MIN 1 MAX 3600",
    "max_memory_usage": f"{4 * _GIB} MIN 1 MAX {4 * _GIB}",
    "max_bytes_before_external_group_by": f"{2 * _GIB}",
    "max_bytes_before_external_sort": f"{2 * _GIB}",
    "max_concurrent_queries_for_user": "10 MIN 1 MAX 10",
}
"""Seconds, bytes and queries. With `readonly` at 2 a client may change other settings, as most
drivers do, within MIN and MAX; 0 would switch a limit off. See ClickHouse's documentation,
"Permissions for queries" and "Constraints on settings"."""


class ReaderError(Exception):
    """Raised when ClickHouse does not make the user; says why, without its password's hash."""


class Client(Protocol):
    """The part of a clickhouse-connect client that is used here."""

    def command(self, cmd: str) -> Any: ...


def reader_statements(password: str, salt: str) -> list[str]:
    """Return the statements; they may run again, and then change the password alone.

    The password is hashed here, so that it is in no log of queries. ClickHouse takes SHA-256 of
    the password and the salt, one after the other, in hexadecimal ("CREATE USER", `sha256_hash`).
    """
    digest = hashlib.sha256((password + salt).encode()).hexdigest()
    identified = f"IDENTIFIED WITH sha256_hash BY '{digest}' SALT '{salt}'"
    limits = ", ".join(f"{name} = {value}" for name, value in LIMITS.items())
    return [
        f"CREATE SETTINGS PROFILE IF NOT EXISTS {PROFILE} SETTINGS {limits}",
        f"CREATE USER IF NOT EXISTS {USER} {identified} SETTINGS PROFILE '{PROFILE}'",
        f"ALTER USER {USER} {identified}",
        f"GRANT openbat_reader TO {USER}",
    ]


def make_reader(client: Client, password: str) -> None:
    """Make the user, or give it this password; the role `openbat_reader` must be there.

    Raises:
        ReaderError: ClickHouse refuses.

    """
    salt = secrets.token_hex(16)
    reason = ""
    for statement in reader_statements(password, salt):
        try:
            client.command(statement)
        except ClickHouseError as error:
            reason = _safe(str(error).splitlines()[0], statement)
            break
    # Outside of the handler, so that no traceback leads to the statement.
    if reason:
        raise ReaderError(
            f"the user {USER} is not made, ClickHouse refuses: {reason}; "
            "unset OPENBAT_CLICKHOUSE_READER_PASSWORD to go without it"
        )


def _safe(message: str, statement: str) -> str:
    """Return a message without what is quoted in a statement: a syntax error repeats parts."""
    for secret in statement.split("'")[1::2]:
        if secret != PROFILE:
            message = message.replace(secret, "...")
    return message
