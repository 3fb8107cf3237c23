"""Requests from good to hopeless: heads, bodies, encodings and frames of them."""

import gzip
import json
import sys
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.contract.client import CAPTURE
from tests.fuzz.mutations import mutated
from tests.property import test_bodies

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

METHODS = st.sampled_from(
    ["POST"] * 12 + ["GET", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE", "PRI", "post", "X", ""]
)
PATHS = st.sampled_from(
    [CAPTURE] * 12
    + [
        "/", "/healthz", "/readyz", "/openapi.json", f"{CAPTURE}/", f"{CAPTURE}?a=b", "*", "//", "",
        "http://example.org", f"http://example.org{CAPTURE}", "/%ff", "/%00", "/é", "/a b",
        "/" + "x" * 70_000,
    ]
)  # fmt: skip
VERSIONS = st.sampled_from(["HTTP/1.1"] * 12 + ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9", ""])
TYPES = st.sampled_from(
    ["application/json"] * 8
    + ["application/json; charset=utf-16", "text/plain", "", ";", "application/json;charset"]
)
VALUES = st.sampled_from(
    [
        "", " ", "0", "-1", "wait=0", "wait=1", 'wait="', "respond-async", "x" * 300, "é",
        '"\\"' * 50, "100-continue", "close", "upgrade", "websocket", "chunked", "gzip", "5", "05",
    ]
)  # fmt: skip
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Prefer", "Prefer", "Idempotency-Key", "Expect", "Connection", "Upgrade", "Host",
                "Accept", "Content-Length", "Transfer-Encoding", "Content-Type",
                "Content-Encoding", "Authorization", "X", "x" * 300, "", " ", "a b",
            ]
        ),
        VALUES,
    ),
    max_size=4,
)  # fmt: skip
BODIES = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    ),
    test_bodies.mutated() | test_bodies.json_values,
    st.booleans(),
)
ENDS = [b"", b"0\r\n", b"0\r\nAuthorization: x\r\n\r\n", b"0\n\n"]
"""Of chunks, that are none or carry a trailer."""
GOOD_BODY = json.dumps(test_bodies.VALID).encode()


@st.composite
def bodies(draw: DrawFn) -> tuple[str, bytes]:
    """Return a content encoding, and a body under it, as a rule; it may be damaged anywhere."""
    body = draw(BODIES | mutated(st.just(GOOD_BODY)) | st.just(GOOD_BODY))
    encoding = draw(st.sampled_from(["", "", "", "gzip", "zstd", "identity", "GZIP", "br"]))
    if encoding.lower() == "gzip":
        body = gzip.compress(body, compresslevel=1, mtime=0) * draw(st.sampled_from([1, 1, 2, 101]))
    elif encoding == "zstd":
        body = zstd.compress(body, 1) * draw(st.sampled_from([1, 1, 2, 101]))
    if encoding and draw(st.booleans()):
        body = draw(mutated(st.just(body)))
    return encoding, body


@st.composite
def chunked(draw: DrawFn, body: bytes) -> bytes:
    """Return a body in chunks; some are not what they say."""
    made = b""
    size = draw(st.sampled_from([1, 7, 1000])) if len(body) < 2000 else 1000
    for at in range(0, len(body), size):
        part = body[at : at + size]
        said = draw(st.sampled_from([len(part)] * 30 + [0, len(part) + 1, 2**32, 2**64]))
        ending = draw(st.sampled_from([b"\r\n"] * 30 + [b"", b"\n", b";x=y\r\n"]))
        made += b"%x%b%b\r\n" % (said, ending, part)
        if len(made) > 60_000:
            break
    return made + draw(st.sampled_from([b"0\r\n\r\n"] * 4 + ENDS))


@st.composite
def requests(draw: DrawFn, key: str) -> bytes:
    """Return a request."""
    encoding, body = draw(bodies())
    key = draw(st.sampled_from([key] * 8 + ["ob_live_" + "0" * 32, "", "é"]))
    headers = [("Host", "x"), ("Authorization", f"Bearer {key}"), ("Content-Type", draw(TYPES))]
    headers += [("Content-Encoding", encoding)] if encoding else []
    framing = draw(st.integers(0, 9))
    if framing < 6:
        off_by = draw(st.sampled_from([0] * 12 + [-1, 1, 10**6, 10**20]))
        headers.append(
            ("Content-Length", f"{max(0, len(body) + off_by):0{1 + 5000 * (off_by == 1)}}")
        )
    elif framing < 9:
        headers.append(("Transfer-Encoding", "chunked"))
        body = draw(chunked(body))
    headers += draw(HEADERS)
    head = f"{draw(METHODS)} {draw(PATHS)} {draw(VERSIONS)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    return head.encode("utf-8") + b"\r\n" + body


def streams(key: str, kept: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return what a client may send on a connection: a request, damaged ones, several at once."""
    one = requests(key)
    return st.one_of(
        one,
        one,
        mutated(one | st.sampled_from(list(kept))),
        st.lists(one, min_size=2, max_size=3).map(b"".join),
        st.binary(max_size=60),
    )
