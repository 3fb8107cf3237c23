"""ClickHouse's HTTP protocol as pure functions: what a request asks, what an answer says.

Nothing here knows the engine. SQL stays bytes, since the rows of an INSERT may follow it. It is
cut into tokens only as far as the protocol needs, and the engine parses it again for real.
"""

import email.parser
import email.policy
import itertools
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Never

import lz4.frame  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BODY = 256 * 1024 * 1024

# Parameters the protocol itself consumes; every other one is a setting of the engine. No session
# outlives a request here, and whoever reaches the port is let in.
_TRANSPORT = re.compile(
    "buffer_size|client_protocol_version|close_session|(de)?compress|database|default_format|"
    "password|query|query_id|quota_key|role|session_(check|id|timeout)|stacktrace|user|"
    "wait_end_of_query"
)
# As the server answers them, by the numbers of its errors; any other is a 500.
_STATUS = {
    **dict.fromkeys((6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167), 400),
    **dict.fromkeys((168, 223, 321, 376, 427, 441, 675, 676), 400),
    **dict.fromkeys((497, 512), 403),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511), 404),
    **dict.fromkeys((76, 209, 439), 503),
    159: 408,
    229: 413,
    779: 415,
    48: 501,
}
_CONTENT_TYPE = (
    (r"json.*eachrow.*", "application/x-ndjson; charset=UTF-8"),
    (r"json.*", "application/json; charset=UTF-8"),
    (r"csvwithnames.*", "text/csv; charset=UTF-8; header=present"),
    (r"csv", "text/csv; charset=UTF-8; header=absent"),
    (r"(tabseparated|tsv).*", "text/tab-separated-values; charset=UTF-8"),
    (r"(native|rowbinary|parquet|arrow|orc|avro|msgpack|npy|bson).*", "application/octet-stream"),
    (r"xml", "application/xml; charset=UTF-8"),
    (r".*", "text/plain; charset=UTF-8"),
)
_TOKEN = re.compile(
    rb"""(?P<blank>\s++|--[^\n]*+|\#[ !][^\n]*+)
      | (?P<literal>'(?:[^'\\]++|\\.|'')*+'|`(?:[^`\\]++|\\.|``)*+`|"(?:[^"\\]++|\\.|"")*+"
          |(?P<tag>\$\w*\$).*?(?P=tag))
      | (?P<word>[A-Za-z_][\w$]*+)
      | \d[\w.]*+ | .""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_BEFORE_ROWS = re.compile(rb"[ \t\f]*+\r?\n?")
_SETTING_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ERROR = re.compile(r"Code: (\d+)\. .*", re.DOTALL)
# After these the word FORMAT is a column's name, and what follows it no format.
_COLUMN_NEXT = frozenset((b",", b".", b"AS", b"BY", b"DISTINCT", b"SELECT"))
_NAME_NEXT = frozenset((b".", b"INTO", b"TABLE"))


class RefusedError(Exception):
    """What the server answers instead of a result; its text is `Code: N. DB::Exception: ...`."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `rows` are an INSERT's data, written in `format` and cut out of `sql`.

    `settings` are such an INSERT's own, cut out too.
    """

    sql: bytes
    format: str
    rows: memoryview | None = None
    settings: bytes = b""


class _Token(NamedTuple):
    key: bytes
    start: int
    end: int


def refuse(code: int, name: str, message: str) -> Never:
    raise RefusedError(f"Code: {code}. DB::Exception: {message}. ({name})")


def explain(message: str, version: str) -> tuple[int, int, str]:
    """HTTP status, ClickHouse's error code and the body of an answer to a failed query."""
    error = _ERROR.search(message)
    code = int(error[1]) if error else 1002
    text = error[0] if error else f"Code: 1002. DB::Exception: {message} (UNKNOWN_EXCEPTION)"
    suffix = f"(version {version})"
    text = text.rstrip()
    return (
        _STATUS.get(code, 500),
        code,
        f"{text if text.endswith(suffix) else f'{text} {suffix}'}\n",
    )


def content_type(output_format: str) -> str:
    name = output_format.lower()
    return next(kind for pattern, kind in _CONTENT_TYPE if re.fullmatch(pattern, name))


def parse(sql: bytes, default_format: str) -> Statement:
    """Take `sql` apart; refuse several statements at once and files of the server's side."""
    tokens = _outline(sql)
    seen: list[_Token] = []
    for token in tokens:
        if seen and seen[0].key == b"INSERT" and seen[-1].key not in _NAME_NEXT:
            if token.key == b"SELECT":
                break
            if token.key == b"VALUES":
                return _values(sql, seen, token)
            if token.key == b"FORMAT" and (name := next(tokens, None)):
                gap = _BEFORE_ROWS.match(sql, name.end)
                rows = memoryview(sql)[gap.end() if gap else name.end :]
                return _insert(sql, seen, token, _text(sql, name), rows)
        seen.append(token)
    else:
        return _plain(sql, seen, default_format)
    return _plain(sql, [*seen, token, *tokens], default_format)


def prologue(params: Mapping[str, str], database: str, *, read_only: bool) -> list[bytes]:
    """Write the statements that make a fresh session into the one a request asks for.

    A name outside the alphabet of names is refused and a value only ever becomes a quoted
    literal, so that no parameter can add SQL. Query parameters are bound by the engine, by type.
    """
    settings = {name: value for name, value in params.items() if not _TRANSPORT.fullmatch(name)}
    for name in settings:
        if not _SETTING_NAME.fullmatch(name):
            refuse(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'")
    for name in ("compress", "decompress"):
        if params.get(name, "0") not in ("", "0", "false"):
            refuse(48, "NOT_IMPLEMENTED", f"Parameter {name}: use HTTP compression instead")
    assignments = b", ".join(
        name.encode() + b" = " + _quote(value, b"'") for name, value in settings.items()
    )
    return [
        *([b"USE " + _quote(database, b"`")] if database else []),
        # 2 forbids to write, and to undo it, yet lets settings change.
        *([b"SET readonly = 2"] if read_only else []),
        *([b"SET " + assignments] if assignments else []),
    ]


def fields(content_type: str, body: bytes) -> dict[str, str]:
    """Read the parameters a client put in a multipart form, as they would not fit a URL."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    found = {}
    for part in form.iter_parts():
        if part.get_filename():
            refuse(48, "NOT_IMPLEMENTED", "External data is not supported")
        value = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        found[str(name)] = value.decode() if isinstance(value, bytes) else ""
    return found


def decompress(body: bytes, encoding: str) -> bytes:
    """Restore a compressed body; refuse it broken, cut short or larger than MAX_BODY."""
    decoders: dict[str, Callable[[], Any]] = {
        "gzip": lambda: zlib.decompressobj(31),
        "deflate": zlib.decompressobj,
        "lz4": lz4.frame.LZ4FrameDecompressor,
        "zstd": zstd.ZstdDecompressor,
    }
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in decoders:
        refuse(89, "UNKNOWN_COMPRESSION_METHOD", f"Unknown compression method {encoding}")
    plain: list[bytes] = []
    room = MAX_BODY + 1
    while body and room:
        decoder = decoders[encoding]()
        try:
            plain.append(decoder.decompress(body, room))
        except (zlib.error, zstd.ZstdError, RuntimeError) as error:
            refuse(271, "CANNOT_DECOMPRESS", f"Cannot decompress {encoding}: {error}")
        room -= len(plain[-1])
        if room and not decoder.eof:
            refuse(271, "CANNOT_DECOMPRESS", f"Cannot decompress {encoding}: the data is cut short")
        body = decoder.unused_data or b""
    if not room:
        too_large()
    return b"".join(plain)


def too_large() -> Never:
    refuse(229, "QUERY_IS_TOO_LARGE", f"The body of the request is over {MAX_BODY} bytes")


def _plain(sql: bytes, tokens: list[_Token], default_format: str) -> Statement:
    keys = [token.key for token in tokens]
    while keys and keys[-1] == b";":
        keys.pop()
    if not keys:
        refuse(62, "SYNTAX_ERROR", "Syntax error: Empty query")
    if b";" in keys:
        refuse(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
    if (b"INTO", b"OUTFILE") in itertools.pairwise(keys):
        refuse(358, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
    if keys[0] == b"INSERT" and (b"FROM", b"INFILE") in itertools.pairwise(keys):
        refuse(78, "UNKNOWN_TYPE_OF_QUERY", "Query has infile and was sent directly to server")
    name = _format_at(keys)
    if name and keys[0] == b"INSERT":
        refuse(48, "NOT_IMPLEMENTED", "INSERT SELECT from input() is not supported")
    return Statement(sql, _text(sql, tokens[name]) if name else default_format)


def _values(sql: bytes, before: list[_Token], keyword: _Token) -> Statement:
    rows = memoryview(sql)[keyword.end :]
    # The engine ignores what follows a semicolon; a server refuses it.
    if sql.find(b";", keyword.end) >= 0:
        keys = [token.key for token in _outline(sql, keyword.end)]
        if b";" in keys[:-1]:
            refuse(62, "SYNTAX_ERROR", "Cannot read data after semicolon")
    return _insert(sql, before, keyword, "Values", rows)


def _insert(
    sql: bytes, before: list[_Token], end: _Token, input_format: str, rows: memoryview
) -> Statement:
    marks = (
        token.start
        for previous, token in itertools.pairwise(before)
        if token.key == b"SETTINGS" and previous.key not in _NAME_NEXT
    )
    cut = next(marks, end.start)
    return Statement(sql[:cut], input_format, rows, sql[cut : end.start])


def _format_at(keys: list[bytes]) -> int:
    """Where the name in a final FORMAT clause stands; 0 without one."""
    for at in range(len(keys) - 1, 1, -1):
        last = at + 1 == len(keys) or keys[at + 1] == b"SETTINGS"
        if last and keys[at - 1] == b"FORMAT" and keys[at - 2] not in _COLUMN_NEXT:
            return at
    return 0


def _outline(sql: bytes, position: int = 0) -> Iterator[_Token]:
    """Tokens outside all brackets, words in capitals; strings and quoted names have no key."""
    depth = 0
    while position < len(sql):
        if sql.startswith(b"/*", position):
            position = _comment_end(sql, position)
            continue
        match = _TOKEN.match(sql, position)
        assert match  # noqa: S101  # the last alternative takes any byte
        start, position = match.span()
        key = match[0].upper() if match["literal"] is None else b""
        depth -= key in (b")", b"]", b"}")
        if depth <= 0 and match["blank"] is None:
            yield _Token(key, start, position)
        depth += key in (b"(", b"[", b"{")


def _comment_end(sql: bytes, start: int) -> int:
    """Where a comment that may hold others ends; the end of all when nobody closed it."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def _text(sql: bytes, token: _Token) -> str:
    return sql[token.start : token.end].decode(errors="replace")


def _quote(value: str, mark: bytes) -> bytes:
    text = value.encode(errors="surrogateescape")
    return mark + text.replace(b"\\", b"\\\\").replace(mark, b"\\" + mark) + mark
