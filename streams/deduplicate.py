"""Which messages of a capture are new.

New means: unseen, or first seen at this very position. So a replay of the same record finds the
same messages new, however much of what came after it the table already knows.
"""

from collections.abc import Mapping, MutableMapping

from msgspec import Struct

from schemas.positions import POSITION_BYTES
from schemas.records import Captured, CapturedMessage
from streams.entries import id_part, message_prefix


class Deduplicated(Struct, gc=False):
    """What is new in a capture.

    Attributes:
        messages: the new ones, each with its index in the capture.
        brought: the ids that the capture is the first to bring: the message's index, and the id's
            part of its key. A replay has messages that are new, but where the table already knows
            them brings no id.
        replaced: positions that introduced an id before, which was forgotten since.

    """

    messages: list[tuple[int, CapturedMessage]]
    brought: list[tuple[int, bytes]]
    replaced: list[bytes]


def message_keys(captured: Captured) -> list[bytes]:
    """Return the local table keys that tell which of the capture's messages are new."""
    prefix = message_prefix(captured.conversation_id)
    return [prefix + id_part(message.id) for message in captured.messages if message.remembered]


def new_messages(
    captured: Captured,
    position: int,
    known: Mapping[bytes, bytes],
    introduced: MutableMapping[bytes, bytes],
    forgotten_before: int = 0,
) -> Deduplicated:
    """Return the capture's new messages, and the ids that it is the first to bring.

    Args:
        captured: the capture.
        position: its position; a message's is this plus its index.
        known: local table entries, at least those of `message_keys`, where they exist.
        introduced: local entries that this record introduced so far; this capture's are added.
        forgotten_before: ids introduced before this position count as unknown.

    """
    prefix = message_prefix(captured.conversation_id)
    remembered_from = forgotten_before.to_bytes(POSITION_BYTES)
    found = Deduplicated([], [], [])
    for index, message in enumerate(captured.messages):
        if message.remembered:
            at = (position + index).to_bytes(POSITION_BYTES)
            part = id_part(message.id)
            key = prefix + part
            first = introduced.get(key) or known.get(key)
            if first is None or first < remembered_from:
                introduced[key] = at
                found.brought.append((index, part))
                if first is not None:
                    found.replaced.append(first)
            elif first != at:
                continue
        found.messages.append((index, message))
    return found
