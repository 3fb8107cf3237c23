"""ClickHouse's engine inside this process (chDB): one database, many queries at once."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from openbat.local.clickhouse_protocol import RefusedError, Statement


@dataclass(frozen=True, slots=True)
class Result:
    """Bytes of a result. The engine frees them with `owner`, whatever views of them are left."""

    view: memoryview
    summary: dict[str, str]
    owner: Any = None


class Engine:
    """The database at a path. Safe to use from any threads, once open.

    Every query runs on a connection of its own, which costs a seventh of a millisecond: queries
    run in parallel, and neither settings nor parameters leak from one into another. (A connection
    shared by threads answers a query with nothing while another one's result is being read.)
    """

    version = name = ""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        # Loading the engine takes a while and gives it this process's time zone for good.
        os.environ["TZ"] = "UTC"
        time.tzset()
        import chdb

        self._path.mkdir(parents=True, exist_ok=True)
        self._connect: Callable[[], Any] = lambda: closing(chdb.connect(str(self._path)))
        self._errors = (RuntimeError, chdb.ChdbError)
        # The engine lives as long as some connection does.
        self._keeper = chdb.connect(str(self._path))
        about = self._keeper.query("SELECT version(), displayName()", "TabSeparated").bytes()
        self.version, self.name = about.decode().rstrip("\n").split("\t")

    def run(self, session: list[bytes], statement: Statement) -> Result:
        """Run `statement` after the statements of `session`, or raise RefusedError."""
        try:
            with self._connect() as connection:
                for preparation in session:
                    connection.query(preparation)
                if statement.rows is None:
                    return _select(connection, statement)
                return self._insert(connection, statement, statement.rows)
        except self._errors as error:
            raise RefusedError(str(error)) from error

    def cancel(self) -> None:
        """Make all running queries fail, soon."""
        self._keeper.query("KILL QUERY WHERE NOT startsWith(query, 'KILL QUERY') ASYNC")

    def close(self) -> None:
        self._keeper.close()

    def _insert(self, connection: Any, statement: Statement, rows: memoryview) -> Result:
        # From a file, without a name, as the streaming insert tells of no error but one in
        # parsing: what failed in writing, or against a constraint, was answered as done.
        # The engine writes blocks of a million rows or 256 MiB, so bad data leaves none of its
        # block.
        with TemporaryFile(dir=self._path) as file:
            file.write(rows)
            file.seek(0)  # also where /dev/fd shares the offset, as on macOS
            done = connection.query(
                b"%s FROM INFILE '/dev/fd/%d' %s FORMAT %s"
                % (statement.sql, file.fileno(), statement.settings, statement.format.encode())
            )
        summary = _summary(
            read_rows=done.rows_written(),
            read_bytes=done.bytes_written(),
            written_rows=done.rows_written(),
            written_bytes=done.bytes_written(),
            elapsed_ns=int(done.elapsed() * 1e9),
        )
        return Result(memoryview(b""), summary)


def _select(connection: Any, statement: Statement) -> Result:
    # A FORMAT clause in the SQL wins over the format given here.
    result = connection.query(statement.sql, statement.format)
    wrapper = result.get_memview()
    view = wrapper.view() if result.size() else memoryview(b"")
    summary = _summary(
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
        result_bytes=result.size(),
        elapsed_ns=int(result.elapsed() * 1e9),
    )
    return Result(view, summary, (result, wrapper))


def _summary(**counts: int) -> dict[str, str]:
    names = "read_rows read_bytes written_rows written_bytes total_rows_to_read result_rows "
    names += "result_bytes elapsed_ns"
    return {name: str(counts.get(name, 0)) for name in names.split()}
