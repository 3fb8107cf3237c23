"""From a request to its body's bytes: bounded in size, before and after decompression.

How long a body may take is the connection's to bound; see `gateway.protocol`.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Protocol, Self

from starlette.requests import Request

from gateway.errors import RefusedError, bad_request, too_large, unavailable
from gateway.head import Head
from schemas import sizes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = "gzip, zstd"
MAX_BODIES_BYTES = 128 * sizes.MIB
"""In one gateway; decoded, a body takes several times its size."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ZSTD_OPTIONS = {int(zstd.DecompressionParameter.window_log_max): 23}
_LONGEST_LENGTH = 19
_MAX_MEMBERS = 100
"""Each costs a copy of what follows it."""


def check_content_type(content_type: str | None) -> None:
    """Take JSON in UTF-8.

    Raises:
        RefusedError: 415 for anything else, and for nothing.

    """
    if content_type == "application/json":
        return
    media_type, _, parameters = (content_type or "").partition(";")
    charset = "utf-8"
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    if media_type.strip().lower() != "application/json" or charset not in {"utf-8", "utf8"}:
        raise RefusedError(
            415,
            "unsupported_content_type",
            "Send JSON in UTF-8, with Content-Type: application/json.",
            headers={"Accept": "application/json"},
        )


class Bodies:
    """The bodies of all requests under way in one gateway, together.

    A request holds its body until it is answered, and many may wait for the log or the workers.
    """

    def __init__(self, limit_bytes: int = MAX_BODIES_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0


class Held:
    """What one request holds, until the block ends."""

    __slots__ = ("_bodies", "_bytes")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.held_bytes -= self._bytes

    def take(self, count: int) -> None:
        """Hold so many bytes more. Raises RefusedError, 503, where there is no room for them."""
        bodies = self._bodies
        if bodies.held_bytes + count > bodies.limit_bytes:
            raise unavailable("overloaded", "Too many captures are under way: send it again.")
        bodies.held_bytes += count
        self._bytes += count


async def read_body(request: Request, head: Head, limit_bytes: int, held: Held) -> bytes:
    """Return the request's body, decompressed; `held` counts it.

    Raises:
        RefusedError: 413 too large, 415 an encoding that we don't take, 400 data that does not
            decode under its encoding, or a client that went away, 503 too many bodies at once.

    """
    encoding = ",".join(head.every(b"content-encoding")).strip().lower() or "identity"
    if encoding not in {"identity", "gzip", "x-gzip", "zstd"}:
        raise RefusedError(
            415,
            "unsupported_content_encoding",
            f"Send the body as it is, or with one of the encodings {ENCODINGS}.",
            headers={"Accept-Encoding": ENCODINGS},
        )
    declared = (head.get(b"content-length") or "").lstrip("0")
    # Python refuses to read a number of thousands of digits.
    if len(declared) > _LONGEST_LENGTH or (declared.isdecimal() and int(declared) > limit_bytes):
        raise too_large(limit_bytes)
    data = await _receive(request, limit_bytes, held)
    if encoding == "identity":
        return data
    try:
        body = _decompress(data, limit_bytes, _new_zstd if encoding == "zstd" else _new_gzip)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise bad_request(
            "undecodable_body", f"The body does not decode as {encoding}: {error}"
        ) from None
    held.take(len(body))
    return body


async def _receive(request: Request, limit_bytes: int, held: Held) -> bytes:
    # Starlette's own stream takes a microsecond longer: half of what decoding a body takes.
    receive = request.receive
    chunks = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise bad_request("incomplete_body", "The body ended early.")
        chunk: bytes = message["body"]
        more = message["more_body"]
        size += len(chunk)
        if size > limit_bytes:
            raise too_large(limit_bytes)
        held.take(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Decompressor(Protocol):
    """What zlib's and zstd's decompressors share."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _new_gzip() -> _Decompressor:
    return zlib.decompressobj(_GZIP_WINDOW)


def _new_zstd() -> _Decompressor:
    return zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)


def _decompress(data: bytes, limit_bytes: int, new: Callable[[], _Decompressor]) -> bytes:
    """Decompress all members of a gzip body, or frames of a zstd one.

    Raises:
        EOFError: it ends early, or has too many members.
        RefusedError: 413, more comes out than the limit.

    """
    decompressed = b""
    for _ in range(_MAX_MEMBERS):
        member = new()
        decompressed += member.decompress(data, limit_bytes + 1 - len(decompressed))
        if len(decompressed) > limit_bytes:
            raise too_large(limit_bytes)
        if not member.eof:
            raise EOFError("it is truncated")
        data = member.unused_data
        if not data:
            return decompressed
    raise EOFError(f"it has over {_MAX_MEMBERS} members")
