"""What one record of captures does: results, outputs and table entries, from the entries so far.

Pure: the same record over the same entries gives the same, and over entries that already know
this record, or later ones, the same results and messages again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from schemas import sizes
from schemas.codec import UndecodableError
from schemas.positions import capture_position
from schemas.records import (
    AnalysisItem,
    Captured,
    CaptureResult,
    Change,
    ConversationState,
    NewMessage,
    encode,
)
from streams.deduplicate import message_keys, new_messages
from streams.entries import (
    changelog_ids_key,
    changelog_state_key,
    due_key,
    introduced_codec,
    local_state,
    replaced_entry,
    state_codec,
    state_key,
)
from streams.forgetting import forgets, forgotten_before
from streams.upsert import upsert

MESSAGES_PER_CHANGE = 20_000
"""More is split: a message takes more bytes in an output than it may take in a capture."""

T = TypeVar("T")


class Applied(Struct, gc=False):
    """What is to be written for one record.

    `local` and `changelog` are the same facts, keyed for reading and for replaying. `messages`
    and `analysis` are in the order of the conversations' first appearance in the record.
    """

    results: list[CaptureResult]
    messages: list[Change]
    analysis: list[AnalysisItem]
    local: dict[bytes, bytes]
    changelog: list[tuple[bytes, bytes | None]]


class _Conversation:
    """A conversation while its captures of one record are applied."""

    __slots__ = ("analysed", "new", "state", "stored", "touched")

    def __init__(self, stored: ConversationState | None) -> None:
        self.stored = stored
        self.state = stored
        self.new: list[NewMessage] = []
        self.analysed: list[NewMessage] = []
        self.touched = False


def needed_keys(captures: Iterable[Captured | None]) -> list[bytes]:
    """Return the keys of the local entries that `apply_record` reads."""
    keys: dict[bytes, None] = {}
    for captured in captures:
        if captured is not None:
            keys[state_key(captured.conversation_id)] = None
            keys.update(dict.fromkeys(message_keys(captured)))
    return list(keys)


def apply_record(
    captures: Sequence[Captured | None],
    generation: int,
    offset: int,
    known: Mapping[bytes, bytes],
) -> Applied:
    """Apply the captures of one record, in order.

    Args:
        captures: its captures, None for each that could not be decoded.
        generation: of the captures topic.
        offset: the record's.
        known: the local entries of `needed_keys`, where they exist.

    Raises:
        UndecodableError: an entry is not in a format that this release reads.

    """
    results: list[CaptureResult] = []
    conversations: dict[bytes, _Conversation] = {}
    local: dict[bytes, bytes] = {}
    changelog: list[tuple[bytes, bytes | None]] = []
    for index, captured in enumerate(captures):
        if captured is None:
            results.append(CaptureResult(None))
            continue
        conversation = conversations.get(captured.conversation_id)
        if conversation is None:
            entry = known.get(state_key(captured.conversation_id))
            conversation = conversations[captured.conversation_id] = _Conversation(
                None if entry is None else state_codec.decode(entry[8:])
            )
        position = capture_position(generation, offset, index)
        forgotten = forgotten_before(conversation.state, captured, position)
        found = new_messages(captured, position, known, local, forgotten)
        new = [
            NewMessage(
                message.id,
                message.role,
                message.content,
                message.sent_at,
                captured.received_at,
                position + at,
            )
            for at, message in found.messages
        ]
        if found.brought:
            key = changelog_ids_key(captured.conversation_id, position)
            changelog.append((key, introduced_codec.encode(found.brought)))
        for position_before in found.replaced:
            key, value = replaced_entry(captured.conversation_id, position_before)
            local[key] = value
        state, left_out = upsert(conversation.state, captured, position, new, forgotten)
        # A capture that the state already applied is a replay: its outputs may have been lost.
        conversation.touched |= state is not conversation.state or state.position >= position
        conversation.state = state
        conversation.new += new
        if captured.analysis:
            conversation.analysed += new
        results.append(CaptureResult(len(new), left_out))
    messages: list[Change] = []
    analysis: list[AnalysisItem] = []
    for conversation_id, conversation in conversations.items():
        if not conversation.touched or conversation.state is None:
            continue
        encoded_state = state_codec.encode(conversation.state)
        # The version byte is the changelog's; the messages record carries its own.
        raw_state = msgspec.Raw(encoded_state[1:])
        parts = _parts(conversation.new)
        messages += [Change(conversation_id, raw_state, part) for part in parts]
        if conversation.analysed:
            if len(conversation.analysed) != len(conversation.new):
                parts = _parts(conversation.analysed)
            state = conversation.state
            analysis += [
                AnalysisItem(state.chatbot_id, conversation_id, part, state.revision)
                for part in parts
            ]
        if conversation.state is not conversation.stored:
            revision = conversation.state.revision
            local[state_key(conversation_id)] = local_state(revision, encoded_state)
            if forgets(conversation.state):
                local[due_key(conversation.state)] = b""
            changelog.append((changelog_state_key(conversation_id, revision), encoded_state))
            if conversation.stored is not None:
                # After the newer revision, so that no moment has neither.
                stored_revision = conversation.stored.revision
                changelog.append((changelog_state_key(conversation_id, stored_revision), None))
    return Applied(results, messages, analysis, local, changelog)


def failing(
    captures: Sequence[Captured | None],
    generation: int,
    offset: int,
    known: Mapping[bytes, bytes],
) -> list[tuple[int, Exception]]:
    """Return the captures of a record that can't be applied even alone, each with its error.

    Such an error is the project's own. What it costs must be that capture, not its partition.

    Raises:
        UndecodableError: as `apply_record`.

    """
    found = []
    for index, captured in enumerate(captures):
        try:
            apply_record([None] * index + [captured], generation, offset, known)
        except UndecodableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is
            found.append((index, error))
    return found


def _parts(new: list[NewMessage]) -> list[msgspec.Raw]:
    """Encode messages, as one part as a rule; none are one part too."""
    starts = range(0, len(new) or 1, MESSAGES_PER_CHANGE)
    return [msgspec.Raw(encode(new[start : start + MESSAGES_PER_CHANGE])) for start in starts]


def batches(
    items: Iterable[T], size: Callable[[T], int], limit_bytes: int = sizes.OUTPUT_BATCH
) -> list[list[T]]:
    """Split items into records of at most the limit, or of one item that is larger."""
    records: list[list[T]] = []
    room = 0
    for item in items:
        wanted = size(item)
        if not records or wanted > room:
            records.append([])
            room = limit_bytes
        records[-1].append(item)
        room -= wanted
    return records
