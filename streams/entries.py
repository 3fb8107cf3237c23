"""The entries of the conversations table: what is kept of a conversation, and under which keys.

The changelog holds two kinds of entries, neither of which can ever hide a newer one, so that a
late write of a worker that lost its partition does no harm, not even after compaction:

    s | conversation | revision  ->  the conversation's state, removed when a newer one is there
    i | conversation | position  ->  the message ids that the capture at this position introduced

Locally there is one entry per conversation and one per message id:

    s | conversation             ->  revision, then the state
    m | conversation | id        ->  the position of the message that introduced the id
"""

from hashlib import blake2b
from typing import Annotated

from msgspec import Meta

from schemas.capture import MAX_MESSAGES
from schemas.codec import UUID_BYTES, Codec, UndecodableError
from schemas.positions import MESSAGE_BITS, POSITION_BYTES
from schemas.records import ConversationState, check_fields

STATE, IDS, MESSAGE = b"s", b"i", b"m"
_CONVERSATION_END = 1 + UUID_BYTES
_CHANGELOG_KEY_BYTES = _CONVERSATION_END + POSITION_BYTES
_LONGEST_WHOLE_ID_BYTES = 32

Index = Annotated[int, Meta(ge=0, lt=MAX_MESSAGES)]
IdPart = Annotated[bytes, Meta(max_length=_LONGEST_WHOLE_ID_BYTES)]

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


def changelog_state_key(conversation_id: bytes, revision: int) -> bytes:
    return STATE + conversation_id + revision.to_bytes(8)


def changelog_ids_key(conversation_id: bytes, position: int) -> bytes:
    return IDS + conversation_id + position.to_bytes(POSITION_BYTES)


def local_state(revision: int, encoded_state: bytes) -> bytes:
    return revision.to_bytes(8) + encoded_state


def replay_entry(
    key: bytes, value: bytes | None, newest_revision: int
) -> dict[bytes, bytes | None]:
    """Return what one changelog entry changes locally.

    Args:
        key: the changelog entry's key.
        value: its value, or None for a tombstone.
        newest_revision: the highest revision known of the entry's conversation, 0 for none.

    Raises:
        UndecodableError: the key or the value is not in a format that this release reads.

    """
    kind, conversation_id = key[:1], key[1:_CONVERSATION_END]
    number = int.from_bytes(key[_CONVERSATION_END:])
    if len(key) != _CHANGELOG_KEY_BYTES or kind not in {STATE, IDS}:
        raise UndecodableError(f"changelog key {key[:_CHANGELOG_KEY_BYTES].hex()} is not known")
    if kind == STATE:
        if value is None:
            # The tombstone of a revision that a newer one replaced; of the newest, an erasure.
            return {state_key(conversation_id): None} if number >= newest_revision else {}
        if number < newest_revision:
            return {}
        state = state_codec.decode(value)
        check_fields(state.fields)
        if (state.conversation_id, state.revision) != (conversation_id, number):
            raise UndecodableError("the state is not the one that its key names")
        return {state_key(conversation_id): local_state(number, value)}
    if number % (1 << MESSAGE_BITS):
        raise UndecodableError("the key's position is not that of a capture")
    if value is None:
        return {}
    prefix = message_prefix(conversation_id)
    return {
        prefix + part: (number + index).to_bytes(POSITION_BYTES)
        for index, part in introduced_codec.decode(value)
    }
