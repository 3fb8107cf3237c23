"""Bytes that almost are what they should be."""

import copy
import random
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.property.test_bodies import places_in

INTERESTING = (
    b"", b"\0", b"\xff", b"\x80", b"\xc0", b"\xc1", b"\x90", b"\xdc\xff\xff",
    b"\xdd\x7f\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xdb\x7f\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff", b"\xc7\x00\x05",
    b"\xd6\xff\xff\xff\xff\xff", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7), b"\xa3\xed\xa0\x80", b"\x91" * 300, b"\x81\xa1x" * 300,
    b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"\\ud800", b"[" * 300,
)  # fmt: skip
"""Headers of MessagePack that promise much, halves of characters, nesting."""

WHOLE = st.sampled_from([-(2**63), -1, 0, 1, 127, 128, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | WHOLE
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=17)
    | st.sampled_from(["x" * 256, "user", "9999-12-31", "0001-01-01T00:00:00+23:59", "\0"])
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 127), st.binary(max_size=3))
    | st.just(datetime(1, 1, 1, tzinfo=UTC))
)
KEYS = (
    st.text(max_size=3) | st.sampled_from(["id", "mrr", "createdAt", "device"]) | st.integers(0, 3)
)
FOREIGN: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


def damaged(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return bytes after a few changes; a part of others may be put in."""
    for _ in range(dice.randint(1, 4)):
        at, to = sorted(dice.randint(0, len(data)) for _ in range(2))
        changed = b""
        kind = dice.randint(0, 6)
        if kind == 0:
            changed = dice.randbytes(dice.randint(0, 4))
        elif kind == 1:
            changed = dice.choice(INTERESTING)
        elif kind == 2:
            changed = data[at:to] * 2
        elif kind == 3:
            changed = other[dice.randint(0, len(other)) :]
        elif kind == 4 and at < len(data):
            changed, to = bytes([data[at] ^ (1 << dice.randint(0, 7))]), at + 1
        elif kind == 5:
            changed, to = dice.randbytes(1), at + 1
        data = data[:at] + changed + data[to:]
    return data


def mutated(seeds: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return one of the seeds after a few changes."""
    return st.builds(damaged, seeds, seeds, st.randoms(use_true_random=True))


@st.composite
def foreign(draw: DrawFn, seeds: st.SearchStrategy[bytes], version: bytes = b"\1") -> bytes:
    """Return a well-formed value that has another value in some places than the seed has.

    Args:
        draw: hypothesis's.
        seeds: encoded values, without their version's byte.
        version: what is put before the value.

    """
    root = [copy.deepcopy(msgspec.msgpack.decode(draw(seeds)))]
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places_in(root)))
        if isinstance(container, list) and container is not root and draw(st.integers(0, 4)) == 0:
            container.insert(key, draw(FOREIGN))
        else:
            container[key] = draw(FOREIGN)
    return version + msgspec.msgpack.encode(root[0])
