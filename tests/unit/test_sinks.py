"""From records to ClickHouse's rows, and what happens to rows that it does not take."""

import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
import msgspec
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from msgspec.structs import replace
from tenacity import wait_none

from schemas import topics
from schemas.codec import UndecodableError
from schemas.dead_letters import Source
from schemas.records import (
    Change,
    ConversationState,
    Fields,
    NewMessage,
    encode,
    messages_codec,
)
from sinks import writer
from sinks.analysis_rows import ANALYSIS_COLUMNS, ANALYSIS_TABLE
from sinks.migrate import MIGRATIONS, SchemaError, migrate, statements
from sinks.rows import (
    CONVERSATION_COLUMNS,
    CONVERSATION_TABLE,
    MESSAGE_COLUMNS,
    MESSAGE_TABLE,
    Rejected,
    RowBatch,
)
from sinks.writer import ClickHouseWriter
from tests import rows

CHATBOT = b"\1" * 16
CANNOT_PARSE_TEXT, UNKNOWN_TABLE, TOO_MANY_PARTS, VIOLATED_CONSTRAINT = 6, 60, 252, 469
POISON = "poison"
COLUMNS = {
    MESSAGE_TABLE: MESSAGE_COLUMNS,
    CONVERSATION_TABLE: CONVERSATION_COLUMNS,
    ANALYSIS_TABLE: ANALYSIS_COLUMNS,
}


def state(revision: int = 1, fields: Fields | None = None, number: int = 1) -> ConversationState:
    conversation_id = number.to_bytes(16)
    return ConversationState(
        CHATBOT, conversation_id, f"external {number}",
        revision=revision, position=10, message_count=2, first_message_at=3, last_message_at=4,
        created_at=5, updated_at=6, fields=fields or {},
    )  # fmt: skip


def messages(*contents: str) -> list[NewMessage]:
    return [
        NewMessage(f"id {index}", "user", content, 100 + index, 200, 300 + index)
        for index, content in enumerate(contents)
    ]


def record(*changes: tuple[ConversationState, list[NewMessage]]) -> bytes:
    return messages_codec.encode(
        [
            Change(of.conversation_id, msgspec.Raw(encode(of)), msgspec.Raw(encode(new)))
            for of, new in changes
        ]
    )


def batch_of(*values: bytes) -> RowBatch:
    batch = RowBatch()
    for offset, value in enumerate(values):
        batch.add(value, 7, offset)
    return batch


def conversation_row(batch: RowBatch, number: int = 1) -> dict[str, Any]:
    found = rows.conversations(batch)
    return next(row for row in found if row["conversation_id"] == number.to_bytes(16))


def contents(batch: RowBatch) -> list[str]:
    return [row["content"] for row in rows.messages(batch)]


def sources(batch: RowBatch) -> list[tuple[int, int, int]]:
    """Return where the message rows came from: partition, offset, number in the record."""
    rejected = [
        batch.messages.rejected(index, ValueError()) for index in range(len(batch.messages.encoded))
    ]
    found = [each.letter.source for each in rejected]
    return [(source.partition, source.offset, source.index) for source in found]


def test_a_message_becomes_a_row() -> None:
    batch = batch_of(record((state(), messages("hi"))))
    (row,) = rows.messages(batch)
    assert row == {
        "chatbot_id": CHATBOT,
        "conversation_id": (1).to_bytes(16),
        "external_conversation_id": "external 1",
        "message_id": "id 0",
        "role": "user",
        "content": "hi",
        "sent_at": 100,
        "received_at": 200,
        "position": 300,
    }
    assert sources(batch) == [(7, 0, 1)]


def test_known_fields_have_columns_and_all_others_are_kept_as_json() -> None:
    fields: Fields = {
        "user": {
            "id": "u", "createdAt": "1970-01-01T01:00:00.000001+01:00", "mrr": 1.5,
            "nickname": ["ü"],
        },
        "organization": {"name": "o"},
        "session": {"pageUrl": "https://example.org", "tab": 2},
        "custom": {"seats": 3},
    }  # fmt: skip
    row = conversation_row(batch_of(record((state(fields=fields), []))))
    assert {name: value for name, value in row.items() if value is not None} == {
        "chatbot_id": CHATBOT,
        "conversation_id": (1).to_bytes(16),
        "external_conversation_id": "external 1",
        "user_id": "u",
        "user_created_at": 1,
        "user_mrr": 1.5,
        "user_other": '{"nickname":["ü"]}'.encode(),
        "organization_name": "o",
        "organization_other": b"{}",
        "session_page_url": "https://example.org",
        "session_other": b'{"tab":2}',
        "custom": b'{"seats":3}',
        "message_count": 2,
        "first_message_at": 3,
        "last_message_at": 4,
        "created_at": 5,
        "updated_at": 6,
        "revision": 1,
    }


def test_a_batch_holds_every_message_and_the_newest_state_of_each_conversation() -> None:
    batch = batch_of(
        record((state(revision=5), messages("a")), (state(revision=1, number=2), messages("b"))),
        record((state(revision=9), messages("c"))),
        record((state(revision=7), messages("d"))),
    )
    assert contents(batch) == ["a", "b", "c", "d"]
    # Each record's rows are counted from 0: a conversation's, then its messages'.
    assert sources(batch) == [(7, 0, 1), (7, 0, 3), (7, 1, 1), (7, 2, 1)]
    assert conversation_row(batch)["revision"] == 9
    assert conversation_row(batch, 2)["revision"] == 1
    assert batch.rows == 6


@pytest.mark.parametrize("value", [b"", b"\xff", record((state(), messages("a")))[:-1]])
def test_of_an_undecodable_record_no_row_is_added(value: bytes) -> None:
    batch = batch_of(record((state(), messages("a"))))
    with pytest.raises(UndecodableError):
        batch.add(value, 0, 1)
    assert batch.rows == 2


NOT_A_MEMBER = "x" * 100


@pytest.mark.parametrize(
    ("part", "new"),
    [
        (encode(state()), encode("no messages")),
        (encode("no state"), encode([])),
        (encode(replace(state(), chatbot_id=b"short")), encode([])),
        (encode(replace(state(), revision=-1)), encode([])),
        (encode(replace(state(), created_at=-1)), encode([])),
        (encode(state()), encode([replace(messages("a")[0], received_at=2**63)])),
        (encode(state()), encode([replace(messages("a")[0], position=-1)])),
        (encode(state(fields={"user": {"id": 5}})), encode([])),
        (encode(state(fields={"user": {"mrr": "much"}})), encode([])),
        (encode(state(fields={"session": {"device": ["phone"]}})), encode([])),
        (encode(state(fields={"user": {"createdAt": NOT_A_MEMBER}})), encode([])),
        (encode(state(fields={"user": {"createdAt": "0001-01-01"}})), encode([])),
        (encode(state(fields={"custom": {"a": msgspec.msgpack.Ext(5, b"")}})), encode([])),
        (encode(state(fields={"user": {"a": {None: 1}}})), encode([])),
    ],
)
def test_a_change_that_columns_cannot_hold_takes_no_other_along(part: bytes, new: bytes) -> None:
    good = record((state(), messages("a"))), record((state(number=3), messages("b")))
    (first,), (last,) = map(messages_codec.decode, good)
    bad = Change((2).to_bytes(16), msgspec.Raw(part), msgspec.Raw(new))
    batch = RowBatch()
    (rejected,) = batch.add(messages_codec.encode([first, bad, last]), 4, 5)
    assert contents(batch) == ["a", "b"]
    assert len(rows.conversations(batch)) == 2
    # The first change has the rows 0 and 1, so the bad one's is 2, and the last one's 3 and 4.
    assert rejected.letter.reason == "undecodable_output"
    assert rejected.letter.source == Source(topics.MESSAGES, 4, 5, 2)
    assert sources(batch) == [(4, 5, 1), (4, 5, 4)]
    assert rejected.value == messages_codec.encode([bad])
    assert rejected.letter.detail
    assert NOT_A_MEMBER not in rejected.letter.detail


class FakeClient:
    """Takes rows as ClickHouse does: a whole insert or nothing.

    Attributes:
        inserts: of every call the table and how many rows it had.
        stored: by table, the rows that were taken.
        failing: raised by the next calls, in order.
        missing: tables that are not there.

    """

    def __init__(self) -> None:
        self.inserts: list[tuple[str, int]] = []
        self.stored: dict[str, list[dict[str, Any]]] = {table: [] for table in COLUMNS}
        self.failing: list[Exception] = []
        self.poison: Exception = DatabaseError("Code: 6. cannot parse", code=CANNOT_PARSE_TEXT)
        self.threads: set[threading.Thread] = set()
        self.missing: set[str] = set()

    def create_insert_context(self, table: str, column_names: Sequence[str]) -> None:
        assert column_names == COLUMNS[table]
        if table in self.missing:
            raise DatabaseError("Code: 60. no such table", code=UNKNOWN_TABLE)

    def raw_insert(
        self,
        table: str,
        column_names: Sequence[str],
        insert_block: bytes,
        settings: dict[str, Any],
        fmt: str,
        compression: str,
    ) -> None:
        assert column_names == COLUMNS[table]
        assert settings == {"max_partitions_per_insert_block": 0}
        assert (fmt, compression) == ("MsgPack", "lz4")
        found = rows.rows([lz4.frame.decompress(insert_block)], column_names)
        self.inserts.append((table, len(found)))
        self.threads.add(threading.current_thread())
        if self.failing:
            raise self.failing.pop(0)
        if any(POISON in row.values() for row in found):
            raise self.poison
        self.stored[table] += found


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr(writer, "wait_random_exponential", lambda **_: wait_none())
    return FakeClient()


@pytest.mark.parametrize("table", COLUMNS)
def test_a_missing_table_is_found_out_before_the_first_row(client: FakeClient, table: str) -> None:
    client.missing.add(table)
    with pytest.raises(DatabaseError):
        ClickHouseWriter(client)


async def test_messages_are_written_before_their_conversations(client: FakeClient) -> None:
    batch = batch_of(record((state(), messages("a", "b"))))
    assert await ClickHouseWriter(client).write(batch) == []
    assert client.inserts == [(MESSAGE_TABLE, 2), (CONVERSATION_TABLE, 1)]
    assert client.stored[MESSAGE_TABLE] == rows.messages(batch)
    assert client.stored[CONVERSATION_TABLE] == rows.conversations(batch)
    assert threading.current_thread() not in client.threads, "the loop must not be blocked"


async def test_an_empty_batch_is_not_written(client: FakeClient) -> None:
    assert await ClickHouseWriter(client).write(RowBatch()) == []
    assert client.inserts == []


@pytest.mark.parametrize(
    "error",
    [
        DatabaseError("Code: 6. Cannot parse\nstack", code=CANNOT_PARSE_TEXT),
        DatabaseError("Code: 469. Constraint", code=VIOLATED_CONSTRAINT),
    ],
)
async def test_one_poison_row_among_a_thousand_is_found_and_all_others_are_written(
    client: FakeClient, error: Exception
) -> None:
    client.poison = error
    sent = [f"m{number}" for number in range(1000)]
    sent[617] = POISON
    batch = batch_of(record((state(), messages(*sent))))
    (rejected,) = await ClickHouseWriter(client).write(batch)

    assert isinstance(rejected, Rejected)
    assert rejected.letter.reason == "rejected_row"
    assert type(error).__name__ in rejected.letter.detail
    assert "\n" not in rejected.letter.detail
    # The conversation's row is 0, the first message's 1.
    assert rejected.letter.source == Source(topics.MESSAGES, 7, 0, 618)
    again = batch_of(rejected.value)
    assert rows.messages(again) == [rows.messages(batch)[617]]
    assert conversation_row(again) == conversation_row(batch)
    stored = [row["content"] for row in client.stored[MESSAGE_TABLE]]
    assert stored == [content for content in sent if content != POISON]
    assert len(client.inserts) <= 2 * 10 + 2
    assert len(client.stored[CONVERSATION_TABLE]) == 1


async def test_several_poison_rows_are_all_found(client: FakeClient) -> None:
    sent = [POISON if number in {0, 1, 63, 99} else f"m{number}" for number in range(100)]
    rejected = await ClickHouseWriter(client).write(batch_of(record((state(), messages(*sent)))))
    assert [each.letter.source for each in rejected] == [
        Source(topics.MESSAGES, 7, 0, row) for row in (1, 2, 64, 100)
    ]
    assert len(client.stored[MESSAGE_TABLE]) == 96


async def test_a_rejected_conversation_is_a_record_without_messages(client: FakeClient) -> None:
    fields: Fields = {"user": {"id": POISON}}
    batch = batch_of(
        record((state(), messages("a"))), record((state(2, fields, number=2), messages("b", "c")))
    )
    (rejected,) = await ClickHouseWriter(client).write(batch)
    assert rejected.letter.source == Source(topics.MESSAGES, 7, 1, 0)
    again = batch_of(rejected.value)
    assert rows.messages(again) == []
    assert conversation_row(again, 2) == conversation_row(batch, 2)


async def test_a_rejected_row_quotes_no_content_in_its_detail(client: FakeClient) -> None:
    client.poison = DatabaseError(
        "Received ClickHouse exception, code: 469, server response: Code: 469. DB::Exception: "
        "Constraint `short` for table openbat.message_rows is violated at row 1. Expression: "
        "(content != 'no'). Column values: content = 'it\\'s secret'. (VIOLATED_CONSTRAINT) "
        "(version 26.9.2.1) (for url http://127.0.0.1:8123)",
        code=VIOLATED_CONSTRAINT,
    )
    (rejected,) = await ClickHouseWriter(client).write(
        batch_of(record((state(), messages(POISON))))
    )
    assert "`short`" in rejected.letter.detail
    assert "secret" not in rejected.letter.detail


@pytest.mark.parametrize(
    "error",
    [
        DatabaseError("Code: 252. too many parts", code=TOO_MANY_PARTS),
        OperationalError("connection refused"),
        DatabaseError("no code at all"),
        OSError("disk"),
    ],
)
async def test_any_other_error_is_retried_with_the_batch_whole(
    client: FakeClient, error: Exception
) -> None:
    client.failing = [error] * 5
    batch = batch_of(record((state(), messages("a", "b", "c"))))
    assert await ClickHouseWriter(client).write(batch) == []
    assert client.inserts == [(MESSAGE_TABLE, 3)] * 6 + [(CONVERSATION_TABLE, 1)]


async def test_an_error_in_the_middle_of_halving_is_retried_with_that_half(
    client: FakeClient,
) -> None:
    client.failing = [client.poison, OperationalError("away")]
    batch = batch_of(record((state(), messages("a", "b", POISON, "d"))))
    (rejected,) = await ClickHouseWriter(client).write(batch)
    assert rejected.letter.source.index == 3
    assert [size for _, size in client.inserts] == [4, 2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("repeats", [0, 1])
@pytest.mark.parametrize("content", ["a", POISON])
async def test_rows_go_when_they_are_written_not_when_garbage_is_collected(
    client: FakeClient, repeats: int, content: str
) -> None:
    client.failing = [OperationalError("away")] * repeats
    batch = batch_of(record((state(), messages("b", content))))
    written = [weakref.ref(table) for table in batch.tables]
    gc.disable()
    try:
        await ClickHouseWriter(client).write(batch)
        del batch
        assert [table() for table in written] == [None, None]
    finally:
        gc.enable()


def test_a_file_is_split_into_statements() -> None:
    sql = (
        "-- a comment; with a semicolon\nCREATE a\n(\n    b String COMMENT 'x; y'\n);\n\n"
        "-- another;\nCREATE c;\n"
    )
    parts = [part.rstrip(";") for part in statements(sql)]
    assert parts == ["CREATE a\n(\n    b String COMMENT 'x; y'\n)", "CREATE c"]


@pytest.mark.parametrize("sql", ["", "\n\n", "-- nothing\n", ";\n", " ;\n;\n"])
def test_what_holds_no_statement_gives_none(sql: str) -> None:
    assert statements(sql) == []


def test_every_statement_of_every_migration_may_run_twice() -> None:
    found = [part for path in MIGRATIONS.glob("*.sql") for part in statements(path.read_text())]
    assert found
    for statement in found:
        # Of activity_rows a row that is inserted again adds nothing.
        again = statement.startswith("INSERT INTO openbat.activity_rows\n")
        assert again or "IF NOT EXISTS" in statement or "IF EXISTS" in statement


class FakeDatabase:
    """Remembers statements, and which migrations were applied."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.applied: list[str] = []
        self.tables: list[str] = []

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> None:
        self.commands.append(cmd)
        if parameters is not None:
            self.applied.append(parameters["name"])

    def query(self, query: str) -> Any:
        if "openbat.migrations" in query:
            return SimpleNamespace(result_rows=[(name,) for name in self.applied])
        assert "system.tables" in query
        return SimpleNamespace(result_rows=[(name,) for name in self.tables])


def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    for name in ("0002_b", "0010_c", "0001_a"):
        (tmp_path / f"{name}.sql").write_text(f"CREATE {name};\nALTER {name};\n")
    database = FakeDatabase()
    assert migrate(database, tmp_path) == ["0001_a.sql", "0002_b.sql", "0010_c.sql"]
    own = [command.rstrip(";") for command in database.commands if "000" in command]
    assert own == ["CREATE 0001_a", "ALTER 0001_a", "CREATE 0002_b", "ALTER 0002_b"]
    (tmp_path / "0011_d.sql").write_text("CREATE 0011_d;\n")
    assert migrate(database, tmp_path) == ["0011_d.sql"]
    assert migrate(database, tmp_path) == []


def test_what_is_not_there_after_all_migrations_is_named(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text(
        "CREATE TABLE IF NOT EXISTS openbat.kept_rows\n(n UInt8);\n"
        "CREATE VIEW IF NOT EXISTS openbat.kept AS SELECT 1;\n"
        "CREATE MATERIALIZED VIEW IF NOT EXISTS openbat.feed TO openbat.kept_rows AS SELECT 1;\n"
    )
    database = FakeDatabase()
    database.tables = ["kept_rows", "another"]
    with pytest.raises(SchemaError, match=r"^ClickHouse lacks openbat\.kept, openbat\.feed, which"):
        migrate(database, tmp_path)
    (tmp_path / "0002_b.sql").write_text("CREATE 0002_b;\n")
    with pytest.raises(
        SchemaError, match=r"`ATTACH TABLE openbat\.kept; ATTACH TABLE openbat\.feed`"
    ):
        migrate(database, tmp_path)
    # Nothing is built upon what is not there.
    assert database.applied == ["0001_a.sql"]
    database.tables += ["kept", "feed"]
    assert migrate(database, tmp_path) == ["0002_b.sql"]
