"""ClickHouse's rows read back from their MessagePack, by a decoder that is not ours."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from sinks.rows import CONVERSATION_COLUMNS, MESSAGE_COLUMNS, RowBatch

UUID_TYPE = 2


def values(encoded: Iterable[bytes]) -> list[Any]:
    """Return the values of rows, one after the other; of UUIDs the bytes."""
    unpacker = msgpack.Unpacker(ext_hook=_uuid)
    for part in encoded:
        unpacker.feed(part)
    return list(unpacker)


def rows(encoded: Iterable[bytes], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows by the names of their columns."""
    found = values(encoded)
    assert len(found) % len(columns) == 0
    starts = range(0, len(found), len(columns))
    return [dict(zip(columns, found[start:], strict=False)) for start in starts]


def messages(batch: RowBatch) -> list[dict[str, Any]]:
    return rows(batch.messages.encoded, MESSAGE_COLUMNS)


def conversations(batch: RowBatch) -> list[dict[str, Any]]:
    return rows(batch.conversations.encoded, CONVERSATION_COLUMNS)


def _uuid(type_: int, data: bytes) -> bytes:
    assert type_ == UUID_TYPE
    return data
