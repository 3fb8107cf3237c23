"""The entries of the conversations table: what is kept of a conversation, and under which keys.

The changelog holds two kinds of entries, neither of which can ever hide a newer one, so that a
late write of a worker that lost its partition does no harm, not even after compaction:

    s | conversation | revision  ->  the conversation's state, removed when a newer one is there
    i | conversation | position  ->  the message ids that the capture at this position introduced

Locally there is one entry per conversation and one per message id:

    s | conversation             ->  revision, then the state
    m | conversation | id        ->  the position of the message that introduced the id
    m | conversation | replaced  ->  the position of an id that was introduced again since: what is
                                     in the changelog there goes when its neighbours do
    d | day | conversation       ->  nothing: from that day on its ids may be due for removal

Values in the changelog begin with their format's version. Keys, and the positions that stand bare
under `m`, have none: another format of theirs gets another first letter.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated

from msgspec import Meta

from schemas.capture import MAX_MESSAGES
from schemas.codec import UUID_BYTES, Codec, UndecodableError
from schemas.positions import MESSAGE_BITS, POSITION_BYTES
from schemas.records import MOST_COUNTED, ConversationState, check_fields
from streams.forgetting import due_day, forgets

STATE, IDS, MESSAGE, DUE = b"s", b"i", b"m", b"d"
_CONVERSATION_END = 1 + UUID_BYTES
_CHANGELOG_KEY_BYTES = _CONVERSATION_END + POSITION_BYTES
_LONGEST_WHOLE_ID_BYTES = 32
_DAY_BYTES = 4

Index = Annotated[int, Meta(ge=0, lt=MAX_MESSAGES)]
IdPart = Annotated[bytes, Meta(max_length=_LONGEST_WHOLE_ID_BYTES)]

MOST_REPLAYED = MOST_COUNTED // 2
"""What a recovered state's counts may be: more, counted up, may be undecodable to who reads the
worker's outputs. No chatbot gets there; a damaged entry may."""

state_codec = Codec(ConversationState, version=1)
introduced_codec = Codec(list[tuple[Index, IdPart]], version=1)
"""Pairs of a message's index in its capture and the id part of its local key."""


def id_part(message_id: str) -> bytes:
    """Return what a message id is remembered as: itself when short, else a 128-bit hash.

    The hash is marked with 0xff, a byte that UTF-8 never begins with.
    """
    whole = message_id.encode()
    if len(whole) <= _LONGEST_WHOLE_ID_BYTES:
        return whole
    return b"\xff" + blake2b(whole, digest_size=16).digest()


def state_key(conversation_id: bytes) -> bytes:
    return STATE + conversation_id


def message_prefix(conversation_id: bytes) -> bytes:
    return MESSAGE + conversation_id


def replaced_entry(conversation_id: bytes, position: bytes) -> tuple[bytes, bytes]:
    """Return the local entry that keeps a replaced id's position for the sweep.

    Marked with 0xfe, a byte that UTF-8 never begins with either.
    """
    return message_prefix(conversation_id) + b"\xfe" + position, position


def changelog_state_key(conversation_id: bytes, revision: int) -> bytes:
    return STATE + conversation_id + revision.to_bytes(8)


def changelog_ids_key(conversation_id: bytes, position: int) -> bytes:
    return IDS + conversation_id + position.to_bytes(POSITION_BYTES)


def introduced_key(conversation_id: bytes, message_position: int) -> bytes:
    """Return the key of the changelog entry that introduced an id at a message's position."""
    return changelog_ids_key(conversation_id, message_position >> MESSAGE_BITS << MESSAGE_BITS)


def due_prefix(day: int) -> bytes:
    return DUE + day.to_bytes(_DAY_BYTES)


def due_key(state: ConversationState) -> bytes:
    return due_prefix(due_day(state)) + state.conversation_id


def conversation_due(key: bytes) -> bytes:
    """Return the conversation that a key of `due_key` names."""
    return key[1 + _DAY_BYTES :]


def local_state(revision: int, encoded_state: bytes) -> bytes:
    return revision.to_bytes(8) + encoded_state


def replay_entry(
    key: bytes, value: bytes | None, known: Callable[[bytes], bytes | None]
) -> dict[bytes, bytes | None]:
    """Return what one changelog entry changes locally.

    The tombstone of ids removes none of them: which they were is not known any more. They are
    forgotten all the same, and the next sweep removes them.

    Args:
        key: the changelog entry's key.
        value: its value, or None for a tombstone.
        known: returns the local entry under a key as it is so far, None for none.

    Raises:
        UndecodableError: the key or the value is not in a format that this release reads.

    """
    kind, conversation_id = key[:1], key[1:_CONVERSATION_END]
    number = int.from_bytes(key[_CONVERSATION_END:])
    if len(key) != _CHANGELOG_KEY_BYTES or kind not in {STATE, IDS}:
        raise UndecodableError(f"changelog key {key[:_CHANGELOG_KEY_BYTES].hex()} is not known")
    if kind == STATE:
        return _replay_state(conversation_id, number, value, known)
    if number % (1 << MESSAGE_BITS):
        raise UndecodableError("the key's position is not that of a capture")
    if value is None:
        return {}
    prefix = message_prefix(conversation_id)
    changes: dict[bytes, bytes | None] = {}
    for index, part in introduced_codec.decode(value):
        at = (number + index).to_bytes(POSITION_BYTES)
        before = known(prefix + part)
        # Introduced again after it was forgotten: a late write of the older entry hides nothing.
        if before is None or before < at:
            changes[prefix + part] = at
        if before is not None and before != at:
            key, replaced = replaced_entry(conversation_id, min(before, at))
            changes[key] = replaced
    return changes


def _replay_state(
    conversation_id: bytes,
    revision: int,
    value: bytes | None,
    known: Callable[[bytes], bytes | None],
) -> dict[bytes, bytes | None]:
    key = state_key(conversation_id)
    entry = known(key)
    newest_revision = int.from_bytes(entry[:8]) if entry else 0
    if value is None:
        # The tombstone of a revision that a newer one replaced; of the newest, an erasure.
        return {key: None} if revision >= newest_revision else {}
    if revision < newest_revision:
        return {}
    state = state_codec.decode(value)
    check_fields(state.fields)
    if (state.conversation_id, state.revision) != (conversation_id, revision):
        raise UndecodableError("the state is not the one that its key names")
    if max(state.revision, state.message_count) > MOST_REPLAYED:
        raise UndecodableError("the state's counts have no room to grow")
    changes: dict[bytes, bytes | None] = {key: local_state(revision, value)}
    if forgets(state):
        changes[due_key(state)] = b""
    return changes
