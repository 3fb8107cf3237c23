"""A dead letter's value as text for a person."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from schemas.codec import UUID_BYTES
from schemas.records import (
    Change,
    captures_codec,
    decode_captured,
    decode_new_messages,
    decode_state,
    messages_codec,
)

SHOWN_CHARACTERS = 8192


def shown(value: bytes) -> str:
    """Return a value as JSON where it can be decoded, as hex otherwise; the beginning of it.

    What this release can't decode as one of its own is still shown as JSON where it is JSON, or
    MessagePack behind a version byte or without one.
    """
    text = _text(value)
    left = len(text) - SHOWN_CHARACTERS
    if left <= 0:
        return text
    return f"{text[:SHOWN_CHARACTERS]}\n... and {left} characters more: --raw writes all of it"


def plain(value: bytes) -> Any:
    """Return a value as what JSON can say, None where nothing here can decode it."""
    ways: tuple[Callable[[bytes], Any], ...] = (
        decode_captured,
        _record,
        messages_codec.decode,
        msgspec.json.decode,
        _object,
        lambda versioned: _object(versioned[1:]),
    )
    for decode in ways:
        try:
            text = json.dumps(_plain(decode(value)), default=str)
            return json.loads(text)
        except Exception:  # noqa: BLE001, S112 - it is here because something can't decode it
            continue
    return None


def _text(value: bytes) -> str:
    decoded = plain(value)
    if decoded is None:
        return value.hex(" ", -4)
    text = json.dumps(decoded, indent=2, ensure_ascii=False)
    return "".join(map(_printable, text))


def _record(value: bytes) -> Any:
    record = captures_codec.decode(value)
    return {**msgspec.structs.asdict(record), "captures": [*map(_frame, record.captures)]}


def _frame(frame: bytes) -> Any:
    try:
        return decode_captured(frame)
    except Exception:  # noqa: BLE001 - one frame of several may be what is wrong
        return frame


def _object(value: bytes) -> Any:
    # A number or two may be read out of anything.
    found = msgspec.msgpack.decode(value)
    if not isinstance(found, list | dict):
        raise TypeError
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Change):
        return {
            "state": _plain(decode_state(value.state)),
            "messages": _plain(decode_new_messages(value.messages)),
        }
    if isinstance(value, Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return str(UUID(bytes=value)) if len(value) == UUID_BYTES else value.hex()
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _printable(character: str) -> str:
    """Escape what could command a terminal; JSON has such characters in strings alone."""
    return (
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
    )
