"""What the analysis worker keeps of a conversation, and under which keys. Pure.

The changelog holds two kinds of entries. A late write of a worker that lost its partition hides
nothing newer: a context stands under a key that grows with it, and what was found never changes.

    c | conversation | position | judged  ->  the context, removed when a newer one is there
    f | conversation | position | analyzer ->  what a paid analyzer found about that message

Locally there is one context per conversation, and an index of when something is due:

    c | conversation                       ->  position, judged, then the context
    f | ...                                ->  as above
    q | due, microseconds | conversation   ->  nothing
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from schemas.codec import UUID_BYTES, Codec, UndecodableError
from schemas.positions import POSITION_BYTES
from schemas.records import AnalysisItem, NewMessage, Number, Position, ReceivedAt, Said, Uuid

CONTEXT, FOUND, DUE = b"c", b"f", b"q"
SAID_MESSAGES = 12
SAID_CHARACTERS = 1_000
"""What is remembered of each: enough to tell what an answer answers."""

_CONVERSATION_END = 1 + UUID_BYTES
_ORDER_BYTES = POSITION_BYTES + 1
_ANALYZER_BYTES = 8
_CONTEXT_KEY_BYTES = _CONVERSATION_END + _ORDER_BYTES
_FOUND_KEY_BYTES = _CONVERSATION_END + POSITION_BYTES + _ANALYZER_BYTES


class Context(Struct, array_like=True, gc=False):
    """What is known of a conversation.

    `position` and `revision` are those of its newest message, `received_at` when that came.
    `judged` tells whether the conversation as a whole was judged since. `due` is when it is to be,
    or else when the context is forgotten, in microseconds. `offset` and `number` name the record
    of `analysis`, and the item in it, that came last.
    """

    chatbot_id: Uuid
    conversation_id: Uuid
    revision: Number
    position: Position
    received_at: ReceivedAt
    judged: bool
    due: Position
    offset: Position
    number: Position
    said: list[Said]


context_codec = Codec(Context, version=1)


class Quiet(NamedTuple):
    """After how long, in microseconds, a quiet conversation is judged, and forgotten."""

    judged: int
    forgotten: int


class TakenIn(Struct, frozen=True, gc=False):
    """The context after an item, and what was said before each of its messages.

    `is_new` tells that all its messages come after what is known: none is here twice.
    """

    context: Context
    before: list[tuple[Said, ...]]
    is_new: bool


def take_in(
    context: Context | None,
    item: AnalysisItem,
    new: Sequence[NewMessage],
    offset: int,
    number: int,
    quiet: Quiet,
) -> TakenIn:
    """Add an item's messages to its conversation's context.

    What the context knows already leaves it as it is: the very same object is returned. Each
    message is told what was said before it, of what is remembered, whichever came first.
    """
    known = context.said if context else item.said or []
    said = (*known, *map(remembered, new))
    is_new = item.said is None and _follow(new, known)
    if is_new:
        ends: Sequence[int] = range(len(known), len(said))
        position = new[-1].position if new else 0
    else:  # what came before may come again
        at = {each.position: each for each in said}
        positions = sorted(at)
        said = tuple([at[position] for position in positions])
        ends = [bisect_left(positions, message.position) for message in new]
        position = max([message.position for message in new], default=0)
    before = [said[max(0, end - SAID_MESSAGES) : end] for end in ends]
    if context is not None and position <= context.position:
        return TakenIn(context, before, is_new)
    received_at = max([message.received_at for message in new], default=0)
    if context is not None:
        received_at = max(received_at, context.received_at)
    # The release before this one sent no revision; it is a time, so this is near it.
    revision = max(item.revision or received_at, context.revision if context else 0)
    due = received_at + quiet.judged
    grown = Context(
        item.chatbot_id, item.conversation_id, revision, position, received_at, False, due,
        offset, number, list(said[-SAID_MESSAGES:]),
    )  # fmt: skip
    return TakenIn(grown, before, is_new)


def _follow(new: Sequence[NewMessage], known: Sequence[Said]) -> bool:
    """Tell whether messages come after those that are known, and one after the other."""
    last = known[-1].position if known else -1
    for message in new:
        if message.position <= last:
            return False
        last = message.position
    return True


def judged(context: Context, quiet: Quiet) -> Context:
    """Return the context of a conversation that was judged as a whole."""
    return replace(context, judged=True, due=context.received_at + quiet.forgotten)


def remembered(message: NewMessage) -> Said:
    content = message.content[:SAID_CHARACTERS]
    return Said(message.id, message.role, content, message.sent_at, message.position)


class Changes(NamedTuple):
    """Local entries, None for one that goes, and the changelog's that say the same."""

    local: dict[bytes, bytes | None]
    changelog: list[tuple[bytes, bytes | None]]


def changes(before: Context | None, after: Context | None) -> Changes:
    """Return what makes the one context out of the other; None is for none."""
    local: dict[bytes, bytes | None] = {}
    changelog: list[tuple[bytes, bytes | None]] = []
    key = key_before = None
    if before is not None:
        key_before = _changelog_key(before)
        local[due_key(before)] = None
    if after is not None:
        key, encoded = _changelog_key(after), context_codec.encode(after)
        local[key[:_CONVERSATION_END]] = key[_CONVERSATION_END:] + encoded
        local[due_key(after)] = b""
        changelog.append((key, encoded))
    elif before is not None:
        local[context_key(before.conversation_id)] = None
    # After the newer one, so that no moment has neither.
    if key_before is not None and key_before != key:
        changelog.append((key_before, None))
    return Changes(local, changelog)


def context_key(conversation_id: bytes) -> bytes:
    return CONTEXT + conversation_id


def decode_context(entry: bytes | None) -> Context | None:
    """Decode a local context. Raises UndecodableError."""
    return None if entry is None else context_codec.decode(entry[_ORDER_BYTES:])


def due_prefix(due: int) -> bytes:
    return DUE + due.to_bytes(8)


def due_key(context: Context) -> bytes:
    return due_prefix(context.due) + context.conversation_id


def conversation_due(key: bytes) -> bytes:
    """Return the conversation that a key of `due_key` names."""
    return key[1 + 8 :]


def found_prefix(conversation_id: bytes) -> bytes:
    return FOUND + conversation_id


def found_key(
    conversation_id: bytes, position: int, analyzer: str, version: str, *, whole: bool
) -> bytes:
    """Return the key of what an analyzer found about a message, or the whole up to it."""
    named = f"{analyzer}\0{version}\0{whole}".encode()
    digest = blake2b(named, digest_size=_ANALYZER_BYTES).digest()
    return found_prefix(conversation_id) + position.to_bytes(POSITION_BYTES) + digest


def replay_entry(
    key: bytes, value: bytes | None, known: Callable[[bytes], bytes | None]
) -> dict[bytes, bytes | None]:
    """Return what one changelog entry changes locally.

    Raises:
        UndecodableError: the key or the value is not in a format that this release reads.

    """
    if key[:1] == FOUND and len(key) == _FOUND_KEY_BYTES:
        return {key: value}
    if key[:1] != CONTEXT or len(key) != _CONTEXT_KEY_BYTES:
        raise UndecodableError(f"changelog key {key[:_CONTEXT_KEY_BYTES].hex()} is not known")
    local_key, order = key[:_CONVERSATION_END], key[_CONVERSATION_END:]
    entry = known(local_key)
    if entry is not None and entry[:_ORDER_BYTES] > order:
        return {}
    before = decode_context(entry)
    if value is None:
        return {local_key: None, due_key(before): None} if before else {}
    after = context_codec.decode(value)
    if after.conversation_id != key[1:_CONVERSATION_END] or _order(after) != order:
        raise UndecodableError("the context is not the one that its key names")
    gone = {due_key(before): None} if before else {}
    return {**gone, local_key: order + value, due_key(after): b""}


def _order(context: Context) -> bytes:
    return context.position.to_bytes(POSITION_BYTES) + bytes([context.judged])


def _changelog_key(context: Context) -> bytes:
    return CONTEXT + context.conversation_id + _order(context)
