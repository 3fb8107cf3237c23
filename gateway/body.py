"""From a request to its body's bytes: bounded in size and time, before and after decompression."""

import asyncio
import sys
import zlib

from starlette.requests import ClientDisconnect, Request

from gateway.errors import RefusedError, bad_request, too_large

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = "gzip, zstd"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ZSTD_WINDOW_LOG = 23
_MAX_MEMBERS = 100
"""Of a gzip body, or frames of a zstd one: each costs a copy of what follows it."""


def check_content_type(content_type: str | None) -> None:
    """Take JSON in UTF-8.

    Raises:
        RefusedError: 415 for anything else, and for nothing.

    """
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


async def read_body(request: Request, limit_bytes: int, timeout_seconds: float) -> bytes:
    """Return the request's body, decompressed.

    Raises:
        RefusedError: 408 too slow, 413 too large, 415 an encoding that we don't take, 400 data
            that does not decode under its encoding, or a client that went away.

    """
    encodings = request.headers.getlist("content-encoding")
    encoding = ",".join(encodings).strip().lower() or "identity"
    if encoding not in {"identity", "gzip", "x-gzip", "zstd"}:
        raise RefusedError(
            415,
            "unsupported_content_encoding",
            f"Send the body as it is, or with one of the encodings {ENCODINGS}.",
            headers={"Accept-Encoding": ENCODINGS},
        )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise too_large(limit_bytes)
    data = await _receive(request, limit_bytes, timeout_seconds)
    if encoding == "identity":
        return data
    decompress = _decompress_zstd if encoding == "zstd" else _decompress_gzip
    try:
        return decompress(data, limit_bytes)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise bad_request(
            "undecodable_body", f"The body does not decode as {encoding}: {error}"
        ) from None


async def _receive(request: Request, limit_bytes: int, timeout_seconds: float) -> bytes:
    chunks = []
    size = 0
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit_bytes:
                    raise too_large(limit_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise RefusedError(
            408,
            "body_too_slow",
            f"The body did not arrive within {timeout_seconds:g} s.",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise bad_request("incomplete_body", "The body ended early.") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _decompress_gzip(data: bytes, limit_bytes: int) -> bytes:
    decompressed = b""
    for _ in range(_MAX_MEMBERS):
        member = zlib.decompressobj(_GZIP_WINDOW)
        decompressed += member.decompress(data, limit_bytes + 1 - len(decompressed))
        if len(decompressed) > limit_bytes:
            raise too_large(limit_bytes)
        if not member.eof:
            raise EOFError("it is truncated")
        data = member.unused_data
        if not data:
            return decompressed
    raise EOFError("it has too many members")


def _decompress_zstd(data: bytes, limit_bytes: int) -> bytes:
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    decompressed = b""
    for _ in range(_MAX_MEMBERS):
        frame = zstd.ZstdDecompressor(options=options)
        decompressed += frame.decompress(data, limit_bytes + 1 - len(decompressed))
        if len(decompressed) > limit_bytes:
            raise too_large(limit_bytes)
        if not frame.eof:
            raise EOFError("it is truncated")
        data = frame.unused_data
        if not data:
            return decompressed
    raise EOFError("it has too many frames")
