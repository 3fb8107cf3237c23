"""Versioned encoding of everything that is stored in Kafka.

A value is one byte that names its format's version, then MessagePack. A format grows within its
version: members come in at the end, with defaults, and readers pass over members that they don't
know, so this release and the one before read each other's values. Every format is at its first
version; a second one would be read for a release before it is written (docs/releases.md).
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

UUID_BYTES = 16


class UndecodableError(Exception):
    """Raised when a record, or one frame of it, is not in a format that this release reads."""


class Codec(Generic[T]):
    """Encodes and decodes one type under one format version.

    Args:
        type_: what a value decodes to.
        version: the version that is written and read, 0..255.

    """

    def __init__(self, type_: type[T], version: int) -> None:
        self._prefix = bytes([version])
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(type_)

    def encode(self, value: T) -> bytes:
        return self._prefix + self._encoder.encode(value)

    def encode_parts(self, parts: Iterable[bytes]) -> bytes:
        """Encode a list, each part of which is encoded already."""
        return self._prefix + self._encoder.encode([msgspec.Raw(part) for part in parts])

    def decode(self, data: bytes) -> T:
        """Decode one value.

        Raises:
            UndecodableError: the version is unknown, or what follows it is not of the type.

        """
        if data[:1] != self._prefix:
            raise UndecodableError(f"format version {data[:1].hex() or 'missing'} is not known")
        try:
            return self._decoder.decode(memoryview(data)[1:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UndecodableError(str(error)) from error
