"""Whether ClickHouse's columns hold rows: each value is encoded as its column's type."""

import re

from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.transform import NativeTransform

from sinks.migrate import MIGRATIONS
from sinks.rows import (
    CONVERSATION_COLUMNS,
    CONVERSATION_TABLE,
    MESSAGE_COLUMNS,
    MESSAGE_TABLE,
    RowBatch,
)
from tests.rows import rows

_COLUMN = re.compile(r"    (\w+) ([A-Z][\w(), ']*?)(?: CODEC.*| COMMENT.*)?,?")


def _types(table: str, columns: tuple[str, ...]) -> list[object]:
    """Return the columns' types, as the migration makes them."""
    sql = (MIGRATIONS / "0001_messages_and_conversations.sql").read_text()
    statement = sql[sql.index(f"TABLE IF NOT EXISTS {table}") :]
    found = {
        match[1]: match[2]
        for line in statement[: statement.index("ENGINE")].splitlines()
        if (match := _COLUMN.fullmatch(line))
    }
    return [get_from_name(found[column]) for column in columns]


_MESSAGE_TYPES = _types(MESSAGE_TABLE, MESSAGE_COLUMNS)
_CONVERSATION_TYPES = _types(CONVERSATION_TABLE, CONVERSATION_COLUMNS)


def insert(batch: RowBatch) -> int:
    """Encode a batch's rows; return how many bytes they take.

    Raises:
        Exception: a value is not its column's.

    """
    found = batch.messages.encoded, batch.conversations.encoded
    return _insert(MESSAGE_TABLE, MESSAGE_COLUMNS, _MESSAGE_TYPES, found[0]) + _insert(
        CONVERSATION_TABLE, CONVERSATION_COLUMNS, _CONVERSATION_TYPES, found[1]
    )


def _insert(table: str, columns: tuple[str, ...], types: list[object], encoded: list[bytes]) -> int:
    if not encoded:
        return 0
    data = list(zip(*(row.values() for row in rows(encoded, columns)), strict=True))
    context = InsertContext(table, columns, types, data, column_oriented=True)
    return sum(map(len, NativeTransform.build_insert(context, error_handler=_refuse)))


def _refuse(error: Exception) -> None:
    raise error
