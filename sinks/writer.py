"""Writes batches of rows to ClickHouse, and isolates a row that it will never take."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError, DataError
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from schemas import topics
from schemas.dead_letters import DeadLetter, Source, detail_of
from sinks.rows import (
    CONVERSATION_COLUMNS,
    CONVERSATION_TABLE,
    MESSAGE_COLUMNS,
    MESSAGE_TABLE,
    Rejected,
    Row,
    RowBatch,
    record_of,
)

log = structlog.get_logger()

LONGEST_RETRY_WAIT_SECONDS = 5

INSERT_SETTINGS = {"max_partitions_per_insert_block": 0}
"""Rows of any months are taken: by default a batch of over 100 is refused for ever."""

ROW_FAULTS = frozenset(
    {
        6, 27, 38, 41, 53, 69, 70, 72, 117, 130, 131, 153, 321, 349, 376, 395, 407, 427, 467, 469,
        675, 676, 691,
    }
)  # fmt: skip
"""ClickHouse's error codes that speak of a row's data: a value that can't be parsed, converted or
held, that breaks a constraint, or that a materialized view of somebody's can't compute with. See
src/Common/ErrorCodes.cpp. Every other error is retried, with the batch whole."""


class Client(Protocol):
    """The part of a clickhouse-connect client that is used here."""

    def create_insert_context(
        self,
        table: str,
        column_names: Sequence[str],
        *,
        data: Sequence[Sequence[Any]],
        column_oriented: bool,
    ) -> Any: ...

    def insert(
        self,
        table: str,
        data: Sequence[Sequence[Any]],
        *,
        column_names: Sequence[str],
        column_oriented: bool,
        settings: dict[str, Any],
    ) -> Any: ...


class ClickHouseWriter:
    """Inserts message rows, then conversation rows, columnar, in a thread of its own.

    Raises:
        ClickHouseError: at construction, ClickHouse can't be reached or lacks the tables.

    """

    def __init__(self, client: Client) -> None:
        self._client = client
        for table, columns in (
            (MESSAGE_TABLE, MESSAGE_COLUMNS),
            (CONVERSATION_TABLE, CONVERSATION_COLUMNS),
        ):
            # Fails here, not at the first row, where the schema is missing. It also lets the
            # client load pandas, where that is installed, before somebody waits for a row.
            client.create_insert_context(
                table, columns, data=[[] for _ in columns], column_oriented=True
            )

    def batch(self) -> RowBatch:
        return RowBatch()

    async def write(self, batch: RowBatch) -> list[Rejected]:
        """Write all rows; return those that ClickHouse will never take.

        Other errors are retried for as long as they last: ClickHouse away, a full disk, too many
        parts.
        """
        conversations = list(batch.conversations.values())
        return [
            *await self._insert(MESSAGE_TABLE, MESSAGE_COLUMNS, batch.messages),
            *await self._insert(CONVERSATION_TABLE, CONVERSATION_COLUMNS, conversations),
        ]

    async def _insert(self, table: str, columns: Sequence[str], rows: list[Row]) -> list[Rejected]:
        if not rows:
            return []
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_may_pass),
                wait=wait_random_exponential(multiplier=0.2, max=LONGEST_RETRY_WAIT_SECONDS),
                before_sleep=lambda state: log.warning(
                    "insert failed; trying again",
                    table=table,
                    rows=len(rows),
                    attempt=state.attempt_number,
                    error=detail_of(state.outcome.exception() if state.outcome else None),
                ),
                reraise=True,
            ):
                with attempt:
                    data = list(zip(*(row.values for row in rows), strict=True))
                    await asyncio.to_thread(
                        self._client.insert, table, data,
                        column_names=columns, column_oriented=True, settings=INSERT_SETTINGS,
                    )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - _may_pass let only row faults through
            if len(rows) == 1:
                (row,) = rows
                value, number = record_of(table, row)
                partition, offset, *_ = row.origin
                source = Source(topics.MESSAGES, partition, offset, number)
                return [Rejected(DeadLetter("rejected_row", detail_of(error), source), value)]
            middle = len(rows) // 2
            return [
                *await self._insert(table, columns, rows[:middle]),
                *await self._insert(table, columns, rows[middle:]),
            ]
        return []


def _may_pass(error: BaseException) -> bool:
    """Whether an error says nothing about a row's data."""
    if isinstance(error, DataError | ValueError | TypeError | OverflowError | AttributeError):
        return False
    code = getattr(error, "code", None)
    return not (isinstance(error, ClickHouseError) and code in ROW_FAULTS)
