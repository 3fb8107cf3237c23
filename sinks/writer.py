"""Writes batches of rows to ClickHouse, and isolates a row that it will never take."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import lz4.frame  # type: ignore[import-untyped]
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from schemas.dead_letters import detail_of
from sinks.analysis_rows import AnalysisBatch
from sinks.rows import Rejected, RowBatch, Rows

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

    def create_insert_context(self, table: str, column_names: Sequence[str]) -> Any: ...

    def raw_insert(
        self,
        table: str,
        column_names: Sequence[str],
        insert_block: bytes,
        settings: dict[str, Any],
        fmt: str,
        compression: str,
    ) -> Any: ...


Inserted = Callable[[str, int, float], None]
"""Told the table, the rows and the seconds of an insert, those of its repetitions included."""
Repeated = Callable[[str], None]
"""Told the table of an insert that failed and is tried again."""


class Batch(Protocol):
    """Rows of several records."""

    @property
    def tables(self) -> Sequence[Rows[Any]]:
        """The rows of each table, in the order in which tables are written."""


def _nobody(*_: object) -> None:
    """Tell nobody."""


class ClickHouseWriter:
    """Inserts batches, table by table, in a thread of its own. Batches may overlap.

    Args:
        client: sends them.
        inserted: called after each insert that ClickHouse took.
        repeated: called before each that is tried again.

    Raises:
        ClickHouseError: at construction, ClickHouse can't be reached or lacks the tables.

    """

    def __init__(
        self, client: Client, inserted: Inserted = _nobody, repeated: Repeated = _nobody
    ) -> None:
        self._client = client
        self._inserted = inserted
        self._repeated = repeated
        batches: tuple[Batch, ...] = (RowBatch(), AnalysisBatch())
        for rows in (rows for batch in batches for rows in batch.tables):
            # Fails here, not at the first row, where the schema is missing.
            client.create_insert_context(rows.table, rows.columns)

    async def write(self, batch: Batch) -> list[Rejected]:
        """Write all rows; return those that ClickHouse will never take.

        Other errors are retried for as long as they last: ClickHouse away, a full disk, too many
        parts.
        """
        rejected = []
        for rows in batch.tables:
            rejected += await self._insert(rows)
        return rejected

    async def _insert(self, rows: Rows[Any]) -> list[Rejected]:
        rejected = []
        todo = [range(len(rows.encoded))]
        while todo:
            part = todo.pop()
            if not part:
                continue
            try:
                await self._insert_part(rows, part)
            except Exception as error:  # noqa: BLE001 - _may_pass let only row faults through
                error.__traceback__ = None  # its frames hold the rows, as below
                if len(part) == 1:
                    rejected.append(rows.rejected(part.start, error))
                else:
                    middle = len(part) // 2
                    todo += [part[middle:], part[:middle]]
        return rejected

    async def _insert_part(self, rows: Rows[Any], part: range) -> None:
        begun_at, table = time.monotonic(), rows.table

        # It must not hold the rows: tenacity leaves it in a cycle, for the garbage collector.
        def before_sleep(state: RetryCallState) -> None:
            self._repeated(table)
            log.warning(
                "insert failed; trying again",
                table=table,
                rows=len(part),
                attempt=state.attempt_number,
                error=detail_of(state.outcome.exception() if state.outcome else None),
            )

        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_RETRY_WAIT_SECONDS),
            before_sleep=before_sleep,
            reraise=True,
        ):
            with attempt:
                await asyncio.to_thread(self._send, rows, part)
        self._inserted(table, len(part), time.monotonic() - begun_at)

    def _send(self, rows: Rows[Any], part: range) -> None:
        block = lz4.frame.compress(b"".join(rows.encoded[part.start : part.stop]))
        self._client.raw_insert(rows.table, rows.columns, block, INSERT_SETTINGS, "MsgPack", "lz4")


def _may_pass(error: BaseException) -> bool:
    """Whether an error says nothing about a row's data."""
    return not (isinstance(error, ClickHouseError) and getattr(error, "code", None) in ROW_FAULTS)
