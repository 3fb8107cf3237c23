"""`openbat export` on ClickHouse's engine: files that are read back and counted."""

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from openbat.export import ExportError, Format, Table, Wanted, export_rows, path_of
from sinks.migrate import migrate
from tests.integration.test_analysts import (
    BANK,
    SHOP,
    Conversation,
    analyses_of,
    ask,
    day,
    rows_of,
    write,
)
from tests.integration.test_clickhouse_server import Server
from tests.stack import OPENBAT

pytest.importorskip("chdb")

TALKS = [
    Conversation(1, SHOP, "free", 1, user="ann"),
    Conversation(2, SHOP, "pro", 3),
    Conversation(3, BANK, "free", 3),
]
TALKS[0].say("user")
READ_BY = {"parquet": "Parquet", "jsonl": "JSONEachRow", "csv": "CSVWithNames"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("export") / "data")
    with running.client() as made:
        migrate(made)
        made.command("SYSTEM STOP MERGES")
    yield running
    assert running.stop(signal.SIGTERM) == 0


@pytest.fixture
async def client(server: Server) -> Any:
    """Return a client of three conversations on two days, whose rows came twice."""
    with server.client(autogenerate_session_id=False) as made:
        for table in ("message_rows", "conversation_rows", "analysis_rows"):
            made.command(f"TRUNCATE TABLE openbat.{table}")
        found = [talk.found(1, "topics", labels=["price", 'it\'s, "new"']) for talk in TALKS]
        for _ in range(2):
            await write(made, rows_of(*TALKS), analyses_of(*found))
        yield made


def wanted(out: Path, **changes: Any) -> Wanted:
    every = Wanted("messages", "parquet", day(5), day(0) + timedelta(days=1), None, out, False)
    return every._replace(**changes)


def count(client: Any, path: Path) -> int:
    (row,) = ask(client, f"SELECT count() FROM file('{path}', {READ_BY[path.suffix[1:]]})")
    return int(row[0])


@pytest.mark.parametrize("format_", get_args(Format))
@pytest.mark.parametrize("table", get_args(Table))
def test_each_day_is_a_file_of_its_rows(
    client: Any, tmp_path: Path, table: Table, format_: Format
) -> None:
    asked = wanted(tmp_path / "new" / "out", table=table, format=format_)
    totals = export_rows(client, asked)
    files = [path_of(asked, day(3)), path_of(asked, day(1))]
    assert sorted(asked.out.iterdir()) == files
    rows = [4, 3] if table == "messages" else [2, 1]
    assert [count(client, path) for path in files] == rows
    assert (totals.files, totals.kept, totals.rows) == (2, 0, sum(rows))
    assert totals.bytes == sum(path.stat().st_size for path in files)
    ids = f"SELECT DISTINCT toString(chatbot_id) FROM file('{files[1]}', {READ_BY[format_]})"
    assert ask(client, ids) == [(str(SHOP),)]


def test_parquet_holds_what_the_view_shows(client: Any, tmp_path: Path) -> None:
    for table in get_args(Table):
        asked = wanted(tmp_path, table=table)
        export_rows(client, asked)
        columns = [row[0] for row in ask(client, f"DESCRIBE TABLE openbat.{table}")]
        plain = [f"toString({name})" for name in columns]
        exact = f"SELECT {', '.join(plain)} FROM openbat.{table} ORDER BY ALL"
        found = f"SELECT {', '.join(plain)} FROM file('{tmp_path}/{table}-*.parquet') ORDER BY ALL"
        assert ask(client, found) == ask(client, exact)
    described = {
        row[0]: row[1]
        for row in ask(client, f"DESCRIBE TABLE file('{tmp_path}/messages-{day(1)}.parquet')")
    }
    assert described["received_at"] == "DateTime64(6, 'UTC')"
    assert {described[name] for name in ("chatbot_id", "content", "role")} == {"String"}


def test_one_chatbot_has_files_of_its_own(client: Any, tmp_path: Path) -> None:
    export_rows(client, wanted(tmp_path))
    asked = wanted(tmp_path, chatbot_id=BANK)
    assert export_rows(client, asked).rows == 2
    assert path_of(asked, day(3)).name == f"messages-{BANK}-{day(3)}.parquet"
    assert count(client, path_of(asked, day(3))) == 2
    assert count(client, path_of(wanted(tmp_path), day(3))) == 4


async def test_a_repeat_replaces_files_or_keeps_those_of_days_that_were_over(
    client: Any, tmp_path: Path
) -> None:
    asked = wanted(tmp_path)
    export_rows(client, asked)
    over, early = (path_of(asked, day(ago)) for ago in (3, 1))
    in_its_day = datetime.combine(day(1), datetime.min.time(), UTC).timestamp()
    os.utime(early, (in_its_day, in_its_day))
    await write(client, rows_of(Conversation(4, SHOP, "free", 3), Conversation(5, SHOP, "pro", 1)))
    totals = export_rows(client, asked._replace(keep=True))
    assert (totals.files, totals.kept) == (1, 1)
    assert [count(client, path) for path in (over, early)] == [4, 5]
    assert export_rows(client, asked).kept == 0
    assert [count(client, path) for path in (over, early)] == [6, 5]


class BreaksOff:
    """A client whose answers end before they are whole, or with an error."""

    def __init__(self, client: Any, content: bytes, error: Exception | None) -> None:
        self._client, self._content, self._error = client, content, error

    def query(self, query: str, parameters: dict[str, Any]) -> Any:
        return self._client.query(query, parameters)

    def raw_stream(self, *_: Any, **__: Any) -> Any:
        return self

    def read(self, _: int) -> bytes:
        content, self._content = self._content, b""
        if not content and self._error is not None:
            raise self._error
        return content

    def close(self) -> None:
        """Do as a stream does."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "broke off"),
        (OSError(28, "No space left on device"), "No space left"),
        (DatabaseError("Code: 241. memory\nat line 2"), "Code: 241. memory;"),
    ],
)
def test_what_broke_off_leaves_the_file_before(
    client: Any, tmp_path: Path, error: Exception | None, said: str
) -> None:
    asked = wanted(tmp_path)
    export_rows(client, asked)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ExportError, match=f"messages of {day(3)}: .*{said}"):
        export_rows(BreaksOff(client, b"PAR1 half", error), asked)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OPENBAT, "export", *arguments],
        env={**os.environ, "OPENBAT_CLICKHOUSE_URL": f"http://127.0.0.1:{server.port}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_says_what_it_wrote(server: Server, client: Any, tmp_path: Path) -> None:
    given = ["--since", f"{day(5)}", "--out", str(tmp_path), "--chatbot", str(UUID(int=1))]
    done = command(server, *given, "--table", "conversations")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("files=2 kept=0 rows=2 bytes=")
    assert f"conversations {day(1)}" in done.stderr
    until = command(server, *given, "--until", f"{day(2)}", "--format", "csv", "--json")
    assert '"rows": 2' in until.stdout
    assert len(list(tmp_path.glob("*.csv"))) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--since", "yesterday"], 1, "openbat: yesterday: expected a day"),
        (["--since", "2026-02-02", "--until", "2026-02-02"], 1, "expected a day after"),
        (["--since", "2026-02-02", "--format", "xml"], 2, "xml"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    server: Server, tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    done = command(server, *arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_directory_that_can_not_be_is_one_sentence(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command(server, "--since", f"{date(2026, 2, 2)}", "--out", str(tmp_path / "file"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"openbat: {tmp_path / 'file'}: ")
