"""Inputs that are kept: each was a fault once, or is one that others make often.

A file per target, JSON Lines. Bytes are in hex, or in Latin-1 as parts that are repeated.
"""

import functools
from pathlib import Path

import msgspec
from msgspec import Struct

CORPUS = Path(__file__).parent / "corpus"


class Entry(Struct, omit_defaults=True):
    """One input, and why it is kept."""

    why: str
    hex: str = ""
    parts: list[tuple[str, int]] = []

    @property
    def data(self) -> bytes:
        parts = [text.encode("latin-1") * times for text, times in self.parts]
        return bytes.fromhex(self.hex) + b"".join(parts)


def path_of(target: str) -> Path:
    return CORPUS / f"{target}.jsonl"


@functools.cache
def entries(target: str) -> list[Entry]:
    """Return what is kept for a target."""
    return msgspec.json.decode(b"[%s]" % b",".join(_lines(target)), type=list[Entry])


def seeds(target: str, longest: int = 4096) -> list[bytes]:
    """Return the kept inputs that are short enough to be changed further."""
    return [entry.data for entry in entries(target) if len(entry.data) <= longest]


def line(data: bytes) -> str:
    """Return an input as a line of its file; why it is kept is to be written in."""
    return msgspec.json.encode(Entry("WHY", data.hex())).decode()


def _lines(target: str) -> list[bytes]:
    return [found for found in path_of(target).read_bytes().splitlines() if found]
