"""Which messages of a capture are new.

New means: unseen, or first seen at this very position. So a replay of the same record finds the
same messages new, however much of what came after it the table already knows.
"""

from collections.abc import Mapping, MutableMapping

from schemas.positions import POSITION_BYTES
from schemas.records import Captured, CapturedMessage
from streams.entries import id_part, message_prefix


def message_keys(captured: Captured) -> list[bytes]:
    """Return the local table keys that tell which of the capture's messages are new."""
    prefix = message_prefix(captured.conversation_id)
    return [prefix + id_part(message.id) for message in captured.messages if message.remembered]


def new_messages(
    captured: Captured,
    position: int,
    known: Mapping[bytes, bytes],
    introduced: MutableMapping[bytes, bytes],
) -> tuple[list[tuple[int, CapturedMessage]], list[tuple[int, bytes]]]:
    """Return the capture's new messages, and the ids that it is the first to bring.

    Args:
        captured: the capture.
        position: its position; a message's is this plus its index.
        known: local table entries, at least those of `message_keys`, where they exist.
        introduced: local entries that this record introduced so far; this capture's are added.

    Returns:
        Pairs of index and message, and pairs of index and the id's part of its key. A replay has
        messages that are new, but where the table already knows them brings no id.

    """
    prefix = message_prefix(captured.conversation_id)
    new = []
    brought = []
    for index, message in enumerate(captured.messages):
        if message.remembered:
            at = (position + index).to_bytes(POSITION_BYTES)
            part = id_part(message.id)
            key = prefix + part
            first = known.get(key) or introduced.get(key)
            if first is None:
                introduced[key] = at
                brought.append((index, part))
            elif first != at:
                continue
        new.append((index, message))
    return new, brought
