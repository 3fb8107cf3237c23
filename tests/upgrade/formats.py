"""Every kind of value that is stored in Kafka: read whole, with what lies in it, and written again.

This release's tests import it. Run as a script with another release on PYTHONPATH it does the
same with that release's code, for values that come in on standard input.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from schemas import topics
from schemas.chatbots import GENERATION_KEY, chatbot_codec, generation_codec
from schemas.codec import Codec, UndecodableError
from schemas.records import (
    AnalysisItem,
    Captured,
    CapturesRecord,
    Change,
    analysis_codec,
    captures_codec,
    decode_captured,
    decode_new_messages,
    decode_state,
    encode,
    messages_codec,
    replies_codec,
)
from streams.entries import IDS, introduced_codec, state_codec


def _same(value: Any) -> Any:
    return value


def _open_captures(record: CapturesRecord) -> CapturesRecord:
    frames: list[Captured | bytes] = [*record.captures]
    for index, frame in enumerate(record.captures):
        with suppress(UndecodableError):  # it stays as it is, as a dead letter would
            frames[index] = decode_captured(frame)
    return replace(record, captures=frames)


def _close_captures(record: CapturesRecord) -> CapturesRecord:
    frames = [frame if isinstance(frame, bytes) else encode(frame) for frame in record.captures]
    return replace(record, captures=frames)


def _open_changes(changes: list[Change]) -> list[Change]:
    return [
        replace(
            change, state=decode_state(change.state), messages=decode_new_messages(change.messages)
        )
        for change in changes
    ]


def _open_items(items: list[AnalysisItem]) -> list[AnalysisItem]:
    return [replace(item, messages=decode_new_messages(item.messages)) for item in items]


class Format(NamedTuple):
    """A codec, and how the parts that a value carries encoded are decoded and encoded."""

    codec: Codec[Any]
    open: Callable[[Any], Any] = _same
    close: Callable[[Any], Any] = _same

    def read(self, data: bytes) -> Any:
        """Return a value with all that lies in it. Raises UndecodableError."""
        return self.open(self.codec.decode(data))

    def write(self, value: Any) -> bytes:
        """Return what this release writes for a value that `read` gave."""
        return self.codec.encode(self.close(value))


FORMATS = {
    "captures": Format(captures_codec, _open_captures, _close_captures),
    "replies": Format(replies_codec),
    # An opened part is encoded where it lies, as its raw bytes would be: nothing is to be closed.
    "messages": Format(messages_codec, _open_changes),
    "analysis": Format(analysis_codec, _open_items),
    "changelog-state": Format(state_codec),
    "changelog-ids": Format(introduced_codec),
    "chatbots": Format(chatbot_codec),
    "generation": Format(generation_codec),
}


def kind_of(topic: str, key: bytes | None) -> str:
    """Return the kind of a topic's value."""
    if topic == topics.CONVERSATIONS_CHANGELOG:
        return "changelog-ids" if (key or b"").startswith(IDS) else "changelog-state"
    return "generation" if key == GENERATION_KEY else topic


def rewritten(values: list[tuple[str, bytes]]) -> list[bytes]:
    """Read and write values, each given with its kind. Raises UndecodableError."""
    return [FORMATS[kind].write(FORMATS[kind].read(data)) for kind, data in values]


if __name__ == "__main__":
    given = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[tuple[str, bytes]])
    sys.stdout.buffer.write(msgspec.msgpack.encode(rewritten(given)))
