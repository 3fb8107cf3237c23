"""What a letter keeps of ClickHouse's messages: where it failed, never on what.

The messages are those of release 26.9.2.1, as clickhouse-connect raises them.
"""

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import MAX_DETAIL_CHARACTERS
from sinks.faults import fault_of

ID = "7caa7b40-0da4-4615-917e-5a966f9ec927"
IN_VIEW = "pushing to view openbat.of_mine"
CONSTRAINT = "Constraint `short` for table openbat.message_rows"
COLUMNS = "converting source column x to destination column x"
INTO_VIEW = f"{COLUMNS}, {IN_VIEW}"
ODD_VIEW = "pushing to view openbat.`we ird 'name`"
CAST = "'FUNCTION _CAST(x :: 0, UInt8 :: 1) -> _CAST(x, UInt8) UInt8 : 2'"
CAST_QUOTED = CAST.replace("UInt8", "DateTime64(6, 'UTC')")

# A value stands at each VALUE; where it is quoted, ClickHouse escapes it.
TEXT = (
    "Cannot parse string 'VALUE' as UInt8: syntax error at begin of string. Note: there are "
    "toUInt8OrZero and toUInt8OrNull functions, which returns zero/NULL instead of throwing "
    "exception: while executing 'FUNCTION toUInt8(__table1.content :: 1) -> "
    f"toUInt8(__table1.content) UInt8 : 0': while {IN_VIEW}"
)
INTO_COLUMN = (
    "Cannot parse string 'VALUE' as UInt8: syntax error at position 2 (parsed just '12'): while "
    f"{COLUMNS}: while executing {CAST}: while {IN_VIEW}"
)
IPV4 = (
    "Cannot parse IPv4 VALUE: Cannot parse IPv4 from String: while executing 'FUNCTION "
    "toIPv4(__table1.content :: 1) -> toIPv4(__table1.content) IPv4 : 0': while "
    f"{IN_VIEW} ({ID})"
)
REGEXP = (
    "OptimizedRegularExpression: cannot compile re2: VALUE, error: missing ): VALUE. Look at "
    "https://github.com/google/re2/wiki/Syntax for reference. Please note that if you specify "
    "regex as an SQL string literal, the slashes have to be additionally escaped. For example, to "
    "match an opening brace, write '\\(' -- the first slash is for SQL and the second one is for "
    "regex: while executing 'FUNCTION match('x'_String :: 1, __table1.content :: 2) -> "
    f"match('x'_String, __table1.content) UInt8 : 0': while {IN_VIEW}"
)
VIOLATED = f"{CONSTRAINT} ({ID}) is violated at row 1. Expression: (length(content) < 3). "
VIOLATED += "Column values: content = 'VALUE'"
UUID = (
    "Code: 376. DB::Exception: Cannot parse uuid VALUE: (at row 1)\n: (in file/uri /dev/fd/52): "
    "While executing MsgPackRowInputFormat: While executing File: data for INSERT was parsed from "
    "file. (CANNOT_PARSE_UUID) (version 26.9.2.1)"
)
FORMS = [
    (6, "CANNOT_PARSE_TEXT", TEXT, [IN_VIEW]),
    (6, "CANNOT_PARSE_TEXT", INTO_COLUMN, [COLUMNS, IN_VIEW]),
    (675, "CANNOT_PARSE_IPV4", IPV4, [IN_VIEW]),
    (427, "CANNOT_COMPILE_REGEXP", REGEXP, [IN_VIEW]),
    (469, "VIOLATED_CONSTRAINT", VIOLATED, [CONSTRAINT]),
    (469, "VIOLATED_CONSTRAINT", f"{VIOLATED}: while {IN_VIEW}", [CONSTRAINT, IN_VIEW]),
    (376, "CANNOT_PARSE_UUID", UUID, []),
]
FORGED = [
    "secret",
    "secret': while pushing to view openbat.secret",
    f": while pushing to view openbat.secret ({ID})",
    ": while pushing to view `secret`. (SECRET) (version 26.9.2.1) (for url http://secret:1)",
    ": while converting source column secret to destination column s: while executing 'FUNCTION _C",
    f": while converting source column secret to destination column s: while executing {CAST[:-3]}",
    f": while converting source column secret to destination column s: while executing {CAST}",
    f"Constraint `secret` for table openbat.secret ({ID}) is violated at row 1",
    "Code: 6. DB::Exception: Constraint `secret` for table secret.secret is violated at row 1",
    "secret " * 200_000,
]


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def raised(code: int, name: str, form: str, value: str = "hello") -> DatabaseError:
    """Return the error with a value in it, as an insert raises it."""
    said = form.replace("'VALUE'", f"'{escaped(value)}'").replace("VALUE", value)
    return DatabaseError(
        f"Received ClickHouse exception, code: {code}, server response: Code: {code}. "
        f"DB::Exception: {said}. ({name}) (version 26.9.2.1) (for url http://127.0.0.1:8123)",
        code=code,
    )


@pytest.mark.parametrize(("code", "name", "form", "where"), FORMS)
@pytest.mark.parametrize("value", FORGED, ids=lambda value: value[:60])
def test_it_says_where_it_failed_and_nothing_of_a_value(
    code: int, name: str, form: str, where: list[str], value: str
) -> None:
    expected = ", ".join([f"DatabaseError: code {code}", name, *where])
    assert fault_of(raised(code, name, form, value)) == expected


@given(st.sampled_from(FORMS), st.text())
def test_no_value_changes_what_is_said(form: tuple[int, str, str, list[str]], value: str) -> None:
    code, name, text, _ = form
    assert fault_of(raised(code, name, text, value)) == fault_of(raised(code, name, text))


@pytest.mark.parametrize(
    ("said", "where"),
    [
        (
            ": while pushing to view openbat.two: while pushing to view openbat.one",
            "pushing to view openbat.two, pushing to view openbat.one",
        ),
        (f": while {ODD_VIEW}", ODD_VIEW),
        (f": while {COLUMNS}: while executing {CAST_QUOTED}: while {IN_VIEW}", INTO_VIEW),
    ],
)
def test_it_names_what_clickhouse_names(said: str, where: str) -> None:
    error = raised(153, "ILLEGAL_DIVISION", f"Division by zero{said}")
    assert fault_of(error) == f"DatabaseError: code 153, ILLEGAL_DIVISION, {where}"


def test_a_servers_build_is_no_part_of_the_name() -> None:
    error = DatabaseError(
        "Received ClickHouse exception, code: 153, server response: Code: 153. DB::Exception: "
        f"Division by zero: while {IN_VIEW} ({ID}). (ILLEGAL_DIVISION) (version 26.3.1.9 (official "
        "build)) (for url http://127.0.0.1:8123)",
        code=153,
    )
    assert fault_of(error) == f"DatabaseError: code 153, ILLEGAL_DIVISION, {IN_VIEW}"


def test_of_an_unknown_form_the_code_is_left() -> None:
    assert fault_of(DatabaseError("secret", code=6)) == "DatabaseError: code 6"


def test_what_is_no_error_of_clickhouses_is_told_without_what_it_quotes() -> None:
    assert fault_of(ValueError("bad value: 'secret'")) == "ValueError: bad value: ..."


def test_it_is_bounded() -> None:
    views = ": while pushing to view openbat.of_mine" * 50
    error = raised(153, "ILLEGAL_DIVISION", f"Division by zero{views}")
    assert len(fault_of(error)) == MAX_DETAIL_CHARACTERS
