"""Whether ClickHouse's client takes rows: they are encoded as they would be sent, and not sent."""

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
    Row,
    RowBatch,
)

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
    return _insert(MESSAGE_TABLE, MESSAGE_COLUMNS, _MESSAGE_TYPES, batch.messages) + _insert(
        CONVERSATION_TABLE,
        CONVERSATION_COLUMNS,
        _CONVERSATION_TYPES,
        list(batch.conversations.values()),
    )


def _insert(table: str, columns: tuple[str, ...], types: list[object], rows: list[Row]) -> int:
    if not rows:
        return 0
    data = list(zip(*(row.values for row in rows), strict=True))
    context = InsertContext(table, columns, types, data, column_oriented=True)
    return sum(map(len, NativeTransform.build_insert(context, error_handler=_refuse)))


def _refuse(error: Exception) -> None:
    raise error
