"""Whether ClickHouse's columns hold rows: each value is encoded as its column's type."""

import re

from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.transform import NativeTransform

from sinks.analysis_rows import ANALYSIS_COLUMNS, ANALYSIS_TABLE, AnalysisBatch
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


def _types(migration: str, table: str, columns: tuple[str, ...]) -> list[object]:
    """Return the columns' types, as the migration makes them."""
    sql = (MIGRATIONS / migration).read_text()
    statement = sql[sql.index(f"TABLE IF NOT EXISTS {table}") :]
    found = {
        match[1]: match[2]
        for line in statement[: statement.index("ENGINE")].splitlines()
        if (match := _COLUMN.fullmatch(line))
    }
    return [get_from_name(found[column]) for column in columns]


_FIRST = "0001_messages_and_conversations.sql"
_MESSAGE_TYPES = _types(_FIRST, MESSAGE_TABLE, MESSAGE_COLUMNS)
_CONVERSATION_TYPES = _types(_FIRST, CONVERSATION_TABLE, CONVERSATION_COLUMNS)
_ANALYSIS_TYPES = _types("0002_analyses.sql", ANALYSIS_TABLE, ANALYSIS_COLUMNS)


def insert(batch: RowBatch | AnalysisBatch) -> int:
    """Encode a batch's rows; return how many bytes they take.

    Raises:
        Exception: a value is not its column's.

    """
    if isinstance(batch, AnalysisBatch):
        encoded = batch.analyses.encoded
        return _insert(ANALYSIS_TABLE, ANALYSIS_COLUMNS, _ANALYSIS_TYPES, encoded)
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
