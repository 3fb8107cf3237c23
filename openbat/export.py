"""Rows of ClickHouse as files, one for each day, in formats that ClickHouse itself writes."""

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from clickhouse_connect.driver.exceptions import ClickHouseError
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from urllib3.exceptions import HTTPError

from schemas import sizes

CHUNK_BYTES = sizes.MIB
TIMEOUT_SECONDS = 3600
"""How long ClickHouse may take for a day, before it sends the first byte."""
_TOO_LARGE = 396
"""ClickHouse's error code of a result that is over a limit."""


Table = Literal["messages", "conversations", "analyses"]
"""What can be exported: the views of these names."""
Format = Literal["parquet", "jsonl", "csv"]
"""A kind of file, by the end of its name."""

_DAY_OF: dict[Table, str] = {
    "messages": "received_at",
    "conversations": "created_at",  # the only time of a conversation that never changes
    "analyses": "received_at",
}
_MADE_BY: dict[Format, tuple[str, bytes]] = {
    "parquet": ("Parquet", b"PAR1"),
    "jsonl": ("JSONEachRow", b"\n"),
    "csv": ("CSVWithNames", b"\n"),
}
"""ClickHouse's name of a format, and what every file ends with."""
_SETTINGS = {
    "output_format_parquet_string_as_string": 1,
    "output_format_parquet_compression_method": "zstd",
    "output_format_json_quote_64bit_integers": 0,
    "date_time_output_format": "iso",
}


_IDS = "toString(t.chatbot_id) AS chatbot_id, toString(t.conversation_id) AS conversation_id"


class ExportError(Exception):
    """Raised when an export can't begin or go on; says why."""


class Wanted(NamedTuple):
    """What is to be exported.

    Attributes:
        table: of which rows.
        format: of the files.
        since: the first day, of UTC.
        until: the day after the last one.
        chatbot_id: whose rows; None for everybody's.
        out: the directory of the files.
        keep: whether a file is kept that was written after its day was over.

    """

    table: Table
    format: Format
    since: date
    until: date
    chatbot_id: UUID | None
    out: Path
    keep: bool


class Totals(Struct):
    """What was written. `kept` counts files that were there before; rows are those of all files."""

    files: int = 0
    kept: int = 0
    rows: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"files={self.files} kept={self.kept} rows={self.rows} bytes={self.bytes}"


class Client(Protocol):
    """The part of a clickhouse-connect client that is used here."""

    def query(self, query: str, parameters: dict[str, Any]) -> Any: ...

    def raw_stream(
        self,
        query: str,
        parameters: dict[str, Any],
        settings: dict[str, Any],
        *,
        fmt: str,
        transport_settings: dict[str, str],
    ) -> Any: ...


def parse_day(text: str) -> date:
    """Read a day, `2026-11-01`. Raises ExportError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ExportError(f"{text}: expected a day, such as 2026-11-01") from None


def path_of(wanted: Wanted, day: date) -> Path:
    """Return the file of a day; one chatbot's has another name than everybody's."""
    parts = [wanted.table, *([str(wanted.chatbot_id)] if wanted.chatbot_id else []), f"{day}"]
    return wanted.out / f"{'-'.join(parts)}.{wanted.format}"


def is_whole(path: Path, day: date) -> bool:
    """Whether what a file holds was asked for after its day was over."""
    end = datetime.combine(day + timedelta(days=1), time(), UTC)
    return path.exists() and path.stat().st_mtime >= end.timestamp()


def export_rows(client: Client, wanted: Wanted) -> Totals:
    """Write the file of each day that has rows, the oldest first, and tell of it on a terminal.

    A file appears when it is whole, and replaces the one before. Neither side holds more of it in
    memory than a piece, but for the local stack's engine, which makes a result at once.

    Raises:
        ExportError: ClickHouse refuses or breaks off, or a file can't be written. Files of the
            days before are there.

    """
    totals = Totals()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[totals]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
    )
    wanted.out.mkdir(parents=True, exist_ok=True)
    days = _days(client, wanted)
    with progress:
        task = progress.add_task("", total=sum(rows for _, rows in days), totals=totals)
        for day, rows in days:
            progress.update(task, description=f"{wanted.table} {day}")
            path = path_of(wanted, day)
            if wanted.keep and is_whole(path, day):
                totals.kept += 1
            else:
                totals.bytes += _write(client, wanted, day, path)
                totals.files += 1
            totals.rows += rows
            progress.advance(task, rows)
    return totals


def _rows(wanted: Wanted) -> str:
    """Return what follows SELECT; a query's parameters say which days, and which chatbot."""
    column = f"t.{_DAY_OF[wanted.table]}"
    chatbot = " AND t.chatbot_id = {chatbot:UUID}" if wanted.chatbot_id else ""
    return (
        f"FROM openbat.{wanted.table} AS t "
        f"WHERE {column} >= toDateTime64({{since:Date}}, 6, 'UTC') "
        f"AND {column} < toDateTime64({{until:Date}}, 6, 'UTC'){chatbot}"
    )


def _parameters(wanted: Wanted, since: date, until: date) -> dict[str, Any]:
    chatbot = {"chatbot": str(wanted.chatbot_id)} if wanted.chatbot_id else {}
    return {"since": since, "until": until, **chatbot}


def _days(client: Client, wanted: Wanted) -> Sequence[tuple[date, int]]:
    """Return the days that have rows, and how many."""
    day = f"toDate(t.{_DAY_OF[wanted.table]}, 'UTC') AS day"
    sql = f"SELECT {day}, count() {_rows(wanted)} GROUP BY day ORDER BY day"
    found = client.query(sql, _parameters(wanted, wanted.since, wanted.until))
    return list(found.result_rows)


def _write(client: Client, wanted: Wanted, day: date, path: Path) -> int:
    """Write a day's file; return its bytes. Raises ExportError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    asked_at = datetime.now(UTC).timestamp()
    try:
        size = _fetch(client, wanted, day, part)
        # What came after the query began is not in it: `is_whole` goes by that moment.
        os.utime(part, (asked_at, asked_at))
        part.replace(path)
    except (ClickHouseError, HTTPError, OSError) as error:
        raise ExportError(_explained(error, wanted, day)) from None
    finally:
        part.unlink(missing_ok=True)
    return size


def _fetch(client: Client, wanted: Wanted, day: date, part: Path) -> int:
    name, end = _MADE_BY[wanted.format]
    # Ids as text: readers of Parquet differ in what they make of 16 bytes.
    sql = f"SELECT * REPLACE ({_IDS}) {_rows(wanted)}"
    parameters = _parameters(wanted, day, day + timedelta(days=1))
    # ClickHouse answers when it is done, from a file of its own: an error is never half a file.
    stream = client.raw_stream(
        sql, parameters, _SETTINGS, fmt=name, transport_settings={"wait_end_of_query": "1"}
    )
    size, tail = 0, b""
    with contextlib.closing(stream), part.open("wb") as file:
        while chunk := stream.read(CHUNK_BYTES):
            size += file.write(chunk)
            tail = (tail + chunk[-len(end) :])[-len(end) :]
        file.flush()
        os.fsync(file.fileno())
    if tail != end:
        raise OSError("ClickHouse broke off; run the same command again")
    return size


def _explained(error: Exception, wanted: Wanted, day: date) -> str:
    said = str(error).splitlines()[0] if str(error) else repr(error)
    if getattr(error, "code", None) == _TOO_LARGE:
        said = f"a day's rows are more than ClickHouse gives at once, try --chatbot ({said})"
    return f"{wanted.table} of {day}: {said}; files of the days before it are whole"
