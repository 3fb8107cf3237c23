"""The local ClickHouse server as its clients see it: a process of its own, over HTTP."""

import datetime as dt
import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import lz4.frame  # type: ignore[import-untyped]
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from openbat.local import clickhouse_protocol
from openbat.local.clickhouse_protocol import (
    MAX_BODY,
    RefusedError,
    decompress,
    parse,
    prologue,
)

pytest.importorskip("chdb")

_MAIN = """
import sys
from pathlib import Path
from openbat.local.clickhouse import serve

path, fd, port = sys.argv[1:]
serve(Path(path), int(fd) or None, "127.0.0.1", int(port), lambda: print("ready", flush=True))
"""
_EVENTS = """
    CREATE TABLE {name} (
        id UUID, at DateTime64(6, 'UTC'), body String, n UInt64, kind LowCardinality(String)
    ) ENGINE = ReplacingMergeTree ORDER BY id
"""
_COLUMNS = ["id", "at", "body", "n", "kind"]


class Server:
    """A server process on a free port, and the client's side of it."""

    def __init__(self, path: Path, *, inherit: bool = False) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        fd = listener.fileno() if inherit else 0
        if not inherit:
            listener.close()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, str(path), str(fd), str(self.port)],
            stdout=subprocess.PIPE,
            pass_fds=[fd] if inherit else [],
        )
        listener.close()
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False
        )

    def client(self, **options: Any) -> Any:
        return clickhouse_connect.get_client(host="127.0.0.1", port=self.port, **options)

    def post(self, sql: str | bytes, **params: str) -> httpx.Response:
        return self.http.post("/", params=params, content=sql)

    def ask(self, sql: str, **params: str) -> str:
        response = self.post(sql, **params)
        assert response.status_code == 200, response.text
        return response.text.rstrip("\n")

    def stop(self, number: int) -> int:
        self.http.close()
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("clickhouse") / "data", inherit=True)
    yield running
    if running.process.poll() is None:
        assert running.stop(signal.SIGTERM) == 0


def rows(count: int) -> list[list[Any]]:
    at = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, dt.UTC)
    return [
        [uuid.UUID(int=n) for n in range(count)],
        [at] * count,
        ["it's; FORMAT Ünicode"] * count,
        [2**63 + n for n in range(count)],
        [f"k{n % 3}" for n in range(count)],
    ]


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_columns_come_back_as_inserted(server: Server, compress: str | bool) -> None:
    table = f"events_{compress}".lower()
    with server.client(compress=compress, tz_mode="aware") as client:
        client.command(_EVENTS.format(name=table))
        columns = rows(5)
        done = client.insert(table, columns, column_names=_COLUMNS, column_oriented=True)
        assert done.written_rows == 5
        found = client.query(f"SELECT * FROM {table} ORDER BY id").result_columns
        assert [list(column) for column in found] == columns


def test_query_parameters_are_bound_by_type(server: Server) -> None:
    with server.client() as client:
        hostile = "'; DROP TABLE x; -- \\ \t\n ` {b:String}"
        found = client.query(
            "SELECT {a:String}, {b:Array(String)}, {c:DateTime64(3)}",
            parameters={"a": hostile, "b": [hostile], "c": dt.datetime(2024, 1, 2, 3, 4, 5)},
        ).first_row
        assert found[:2] == (hostile, [hostile])
        # Longer than a URL takes: the client sends a form.
        long = client.query("SELECT length({a:String})", parameters={"a": "x" * 50_000})
        assert long.first_row == (50_000,)


def test_parameters_add_no_sql(server: Server) -> None:
    server.ask("CREATE TABLE victim (a UInt8) ENGINE = MergeTree ORDER BY a")
    attack = "1'; DROP TABLE victim; --"
    assert server.ask("SELECT {a:String} FORMAT TSVRaw", param_a=attack) == attack
    for refused, code in (
        (server.post("SELECT {a:UInt8}", param_a="1; DROP TABLE victim"), "457"),
        (server.post("SELECT 1", max_threads=attack), "27"),
        (server.post("SELECT 1", **{"max_threads = 1; DROP TABLE victim; --": "1"}), "115"),
        (server.post("SELECT 1", database="default`; DROP TABLE victim; --"), "81"),
        (server.post("SELECT 1; DROP TABLE victim"), "62"),
        (server.post("INSERT INTO victim VALUES (1); DROP TABLE victim"), "62"),
    ):
        assert refused.headers["X-ClickHouse-Exception-Code"] == code
    assert server.ask("SELECT count() FROM victim", query_id="a\r\nX-Injected: 1") == "0"


@pytest.mark.parametrize(
    ("sql", "params", "status", "code", "name"),
    [
        ("SELECT * FROM nowhere", {}, 404, 60, "UNKNOWN_TABLE"),
        ("SELECT nothing", {}, 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELEC 1", {}, 400, 62, "SYNTAX_ERROR"),
        ("", {}, 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1", {"database": "nowhere"}, 404, 81, "UNKNOWN_DATABASE"),
        ("SELECT 1", {"no_such_setting": "1"}, 404, 115, "UNKNOWN_SETTING"),
        ("SELECT 1 FORMAT Nothing", {}, 404, 73, "UNKNOWN_FORMAT"),
        ("SELECT sleep(3)", {"max_execution_time": "0.1"}, 408, 159, "TIMEOUT_EXCEEDED"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", {}, 500, 358, "INTO_OUTFILE_NOT_ALLOWED"),
        ("SELECT 1", {"compress": "1"}, 501, 48, "NOT_IMPLEMENTED"),
    ],
)
def test_errors_are_those_of_clickhouse(
    server: Server, sql: str, params: dict[str, str], status: int, code: int, name: str
) -> None:
    refused = server.post(sql, **params)
    assert refused.status_code == status
    assert refused.headers["X-ClickHouse-Exception-Code"] == str(code)
    assert refused.text.startswith(f"Code: {code}. DB::Exception: ")
    assert f"({name}) (version " in refused.text


def test_a_client_library_sees_the_code(server: Server) -> None:
    with server.client() as client, pytest.raises(DatabaseError) as failed:
        client.query("SELECT * FROM nowhere")
    assert failed.value.code == 60


def test_get_only_reads(server: Server) -> None:
    get = server.http.get
    assert get("/").text == get("/ping").text == get("/replicas_status").text == "Ok.\n"
    assert get("/", params={"query": "SELECT 1", "max_threads": "1"}).text == "1\n"
    for params in (
        {"query": "CREATE TABLE got (a UInt8) ENGINE = Memory"},
        {"query": "SELECT 1", "readonly": "0"},
    ):
        assert get("/", params=params).headers["X-ClickHouse-Exception-Code"] == "164"


def test_formats_and_headers(server: Server) -> None:
    made = server.post("CREATE TABLE formats (a UInt8, b String) ENGINE = MergeTree ORDER BY a")
    assert (made.status_code, made.content) == (200, b"")
    put = server.http.post(
        "/",
        params={"query": "INSERT INTO formats FORMAT JSONEachRow"},
        content='{"a": 1, "b": "x;"}\n{"a": 2, "b": "FORMAT CSV"}\n',
    )
    assert json.loads(put.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    server.ask("INSERT INTO formats FORMAT CSVWithNames\nb,a\ny,3\n")
    server.ask("(4, 'z')", query="INSERT INTO formats VALUES")
    server.ask("INSERT INTO formats SELECT a + 4, b FROM formats")

    found = server.post("SELECT * FROM formats ORDER BY a LIMIT 1 FORMAT JSON", query_id="q-1")
    assert found.json()["data"] == [{"a": 1, "b": "x;"}]
    assert found.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert found.headers["X-ClickHouse-Format"] == "JSON"
    assert found.headers["X-ClickHouse-Query-Id"] == "q-1"
    assert found.headers["X-ClickHouse-Timezone"] == "UTC"
    table = server.post("SELECT count() AS c FROM formats;", default_format="CSVWithNames")
    assert table.text == '"c"\n8\n'
    read = server.post("SELECT sum(a) FROM formats").headers["X-ClickHouse-Summary"]
    assert json.loads(read)["read_rows"] == "8"
    assert table.headers["Content-Type"] == "text/csv; charset=UTF-8; header=present"
    assert server.ask("SELECT timezone(), toTypeName(now64(3))") == "UTC\tDateTime64(3)"


def test_a_bad_insert_leaves_nothing(server: Server) -> None:
    server.ask("CREATE TABLE whole (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    good = "".join(f'{{"a":{n},"b":"x"}}\n' for n in range(100_000))
    bad = server.post(good + '{"a":"no number"}\n', query="INSERT INTO whole FORMAT JSONEachRow")
    assert bad.status_code == 400
    assert server.post(b"garbage", query="INSERT INTO whole FORMAT Native").status_code == 500
    unknown = server.post("(1)", query="INSERT INTO whole (nope) VALUES")
    assert unknown.headers["X-ClickHouse-Exception-Code"] == "16"
    assert server.ask("SELECT count() FROM whole") == "0"
    server.post(good, query="INSERT INTO whole FORMAT JSONEachRow")
    assert server.ask("SELECT count(), sum(a) FROM whole") == "100000\t4999950000"
    assert server.ask("SELECT count() FROM system.parts WHERE table = 'whole' AND active") == "1"


@pytest.mark.parametrize("form", ["INSERT INTO {} FORMAT JSONEachRow", "INSERT INTO {} VALUES"])
def test_an_insert_that_fails_after_its_data_was_parsed_is_refused(
    server: Server, form: str
) -> None:
    table = f"strict_{form.rpartition(' ')[2]}".lower()
    server.ask(
        f"CREATE TABLE {table} (a String, n UInt8 MATERIALIZED toUInt8(if(a = 'x', a, '0')), "
        "CONSTRAINT short CHECK length(a) < 3) ENGINE = MergeTree ORDER BY a"
    )
    for text, code in (("long", "469"), ("x", "6"), ("ok", None)):
        row = f"('{text}')" if "VALUES" in form else f'{{"a":"{text}"}}'
        done = server.post(row, query=form.format(f"{table} (a) SETTINGS max_threads = 1"))
        assert done.headers.get("X-ClickHouse-Exception-Code") == code
    assert server.ask(f"SELECT * FROM {table}") == "ok"


def test_a_body_too_large_is_refused(server: Server) -> None:
    chunks = (b"x" * (1 << 20) for _ in range(MAX_BODY // (1 << 20) + 1))
    refused = server.http.post("/", content=chunks)
    assert refused.status_code == 413
    assert refused.headers["X-ClickHouse-Exception-Code"] == "229"


def test_a_large_result_arrives_whole_and_a_huge_one_is_refused(server: Server) -> None:
    sql = "SELECT number, repeat('x', 90) FROM numbers(1000000) ORDER BY number FORMAT TSV"
    with server.http.stream("POST", "/", content=sql) as answer:
        size, check = 0, 0
        for chunk in answer.iter_bytes():
            size, check = size + len(chunk), zlib.crc32(chunk, check)
    expected = "".join(f"{n}\t{'x' * 90}\n" for n in range(1_000_000)).encode()
    assert (size, check) == (len(expected), zlib.crc32(expected))
    huge = server.post("SELECT repeat(toString(number), 100) FROM numbers(1000000)")
    assert huge.headers["X-ClickHouse-Exception-Code"] == "396"


def test_many_at_once_see_only_their_own(server: Server) -> None:
    server.ask("CREATE TABLE busy (who UInt8, n UInt64) ENGINE = MergeTree ORDER BY n")

    def work(who: int) -> None:
        with server.client() as client:
            for n in range(15):
                client.insert("busy", [[who, n * 100 + i] for i in range(100)])
                mine = client.query(
                    "SELECT {who:UInt8}, count(), getSetting('max_block_size') FROM busy "
                    "WHERE who = {who:UInt8}",
                    parameters={"who": who},
                    settings={"max_block_size": 1000 + who},
                )
                assert mine.first_row == (who, (n + 1) * 100, 1000 + who)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert server.ask("SELECT count(), uniqExact(who, n) FROM busy") == "12000\t12000"


def test_ping_answers_during_a_long_query(server: Server) -> None:
    def long() -> None:
        server.post("SELECT count() FROM system.numbers", max_execution_time="1.5")

    thread = threading.Thread(target=long)
    thread.start()
    time.sleep(0.3)
    slowest = 0.0
    for _ in range(20):
        begun = time.monotonic()
        assert server.http.get("/ping").text == "Ok.\n"
        slowest = max(slowest, time.monotonic() - begun)
    assert thread.is_alive()
    assert slowest < 1
    thread.join()


def test_replacing_views_and_rich_types(server: Server) -> None:
    server.ask("CREATE DATABASE rich")
    server.ask(
        "CREATE TABLE latest (id UUID, version UInt64, tags Map(String, UInt8), doc JSON) "
        "ENGINE = ReplacingMergeTree(version) ORDER BY id",
        database="rich",
    )
    server.ask("CREATE VIEW rich.now AS SELECT * FROM rich.latest FINAL")
    identity = uuid.UUID(int=7)
    with server.client(database="rich") as client:
        for version in (1, 3, 2):
            doc = {"deep": {"version": version}}
            client.insert("latest", [[identity, version, {"a": version}, doc]])
        assert client.query("SELECT * FROM now").result_rows == [
            (identity, 3, {"a": 3}, {"deep": {"version": 3}})
        ]
        client.command("OPTIMIZE TABLE latest FINAL")
        assert client.command("SELECT count() FROM latest") == 1


def test_a_kill_loses_no_acknowledged_insert_and_a_stop_takes_seconds(tmp_path: Path) -> None:
    for life in range(2):
        server = Server(tmp_path / "data")
        server.ask("CREATE DATABASE IF NOT EXISTS kept")
        server.ask("CREATE TABLE IF NOT EXISTS kept.t (n UInt64) ENGINE = MergeTree ORDER BY n")
        assert server.ask("SELECT count() FROM kept.t") == str(life * 5000)
        with server.client(database="kept") as client:
            for _ in range(5):
                client.insert("t", [[n] for n in range(1000)])
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    server = Server(tmp_path / "data")
    assert server.ask("SELECT count() FROM kept.t") == "10000"
    # The path belongs to one process at a time.
    second = [sys.executable, "-c", _MAIN, str(tmp_path / "data"), "0", "0"]
    assert subprocess.run(second, capture_output=True, timeout=60, check=False).returncode == 1
    stop_under_a_query_without_end(server)


def stop_under_a_query_without_end(server: Server) -> None:
    answers: list[httpx.Response] = []
    endless = threading.Thread(
        target=lambda: answers.append(server.post("SELECT count() FROM system.numbers"))
    )
    endless.start()
    time.sleep(0.3)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert time.monotonic() - begun < 10
    endless.join()
    assert answers[0].headers["X-ClickHouse-Exception-Code"] == "394"
    server.stop(signal.SIGTERM)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", "TSV"),
        ("SELECT 1 FORMAT JSON", "JSON"),
        ("SELECT 1\nformat JSON settings max_threads = 1 ; -- end", "JSON"),
        ("SELECT 1 /* FORMAT /* nested; */ A */ FORMAT B # FORMAT C", "B"),
        ("SELECT 'it''s \\' FORMAT A'", "TSV"),
        ("SELECT `FORMAT` FORMAT JSON", "JSON"),
        ("SELECT $x$ ; FORMAT A $x$, (1, ';')", "TSV"),
        ("SELECT a AS format FROM t ORDER BY format DESC", "TSV"),
        ("WITH x AS (SELECT 1 FORMAT A) SELECT * FROM x", "TSV"),
        ("INSERT INTO t SELECT * FROM values('a UInt8', 1)", "TSV"),
    ],
)
def test_the_result_format_is_found(sql: str, expected: str) -> None:
    statement = parse(sql.encode(), "TSV")
    assert (statement.format, statement.rows) == (expected, None)


@pytest.mark.parametrize(
    ("sql", "head", "format_", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1;2\n", b"INSERT INTO t ", "CSV", b"1;2\n"),
        (b"insert into t(values) format TSV\r\n\n\x00", b"insert into t(values) ", "TSV", b"\n\0"),
        (b"INSERT INTO x.values VALUES (';')", b"INSERT INTO x.values ", "Values", b" (';')"),
        (b"INSERT INTO t FORMAT X", b"INSERT INTO t ", "X", b""),
    ],
)
def test_rows_are_cut_off_an_insert(sql: bytes, head: bytes, format_: str, data: bytes) -> None:
    statement = parse(sql, "TSV")
    assert statement.rows is not None
    assert (statement.sql, statement.format, bytes(statement.rows)) == (head, format_, data)


def test_settings_of_an_insert_are_cut_off_too() -> None:
    statement = parse(b"INSERT INTO settings(a) SETTINGS a = 1 FORMAT X", "TSV")
    assert (statement.sql, statement.settings) == (b"INSERT INTO settings(a) ", b"SETTINGS a = 1 ")


def test_settings_are_quoted() -> None:
    assert prologue({"a": "\\'", "query": "x"}, "d`", read_only=True) == [
        b"USE `d\\``",
        b"SET readonly = 2",
        b"SET a = '\\\\\\''",
    ]


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("lz4", lz4.frame.compress)],
)
def test_compressed_bodies_are_bounded(
    monkeypatch: pytest.MonkeyPatch, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(clickhouse_protocol, "MAX_BODY", 2000)
    packed = compress(b"a" * 1000)
    assert decompress(packed + compress(b"b"), encoding) == b"a" * 1000 + b"b"
    for broken, code in (
        (packed[:-5], "271"),
        (b"no", "271"),
        (compress(b"a" * 2001), "229"),
        (packed * 3, "229"),
    ):
        with pytest.raises(RefusedError, match=f"Code: {code}"):
            decompress(broken, encoding)
