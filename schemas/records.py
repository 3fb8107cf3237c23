"""The records that travel through Kafka, topic by topic.

All are MessagePack arrays: member names cost nothing on the wire, so a member may only ever be
added at the end, with a default. Times are microseconds since the Unix epoch, UTC. Ids of
conversations and chatbots are the 16 bytes of a UUID.

A frame of a `captures` record and the parts of `messages` and `analysis` records have no version
byte: theirs is that of the record around them. A frame that goes to dead-letters by itself is in
the format of version 1, the only one so far.

The bounds are those that the worker's arithmetic relies on: what does not keep them does not
decode, and goes to dead-letters instead of ending the worker.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from schemas.capture import MAX_DEPTH, MAX_MESSAGES, Role
from schemas.chatbots import MAX_REMEMBER_DAYS
from schemas.codec import UUID_BYTES, Codec, UndecodableError
from schemas.positions import MAX_CAPTURES_PER_RECORD, MAX_GENERATION
from schemas.times import FIRST_INSTANT, LAST_INSTANT
from schemas.topics import REPLY_PARTITIONS

Uuid = Annotated[bytes, Meta(min_length=UUID_BYTES, max_length=UUID_BYTES)]
SentAt = Annotated[int, Meta(ge=FIRST_INSTANT, le=LAST_INSTANT)]
ReceivedAt = Annotated[int, Meta(ge=0, le=LAST_INSTANT)]
RememberDays = Annotated[int, Meta(ge=0, le=MAX_REMEMBER_DAYS)]
"""How long message ids are remembered after a conversation's last change; 0 is for ever."""

Fields = dict[str, dict[str, Any]]
"""What is known about a conversation: `user`, `organization`, `session` and `custom`, each an
object of fields."""


class CapturedMessage(Struct, array_like=True, gc=False):
    """One message as the gateway took it.

    `remembered` is false for an id that the gateway made afresh: no later message can carry it,
    so the worker need not remember it.
    """

    id: str
    role: Role
    content: str
    sent_at: SentAt
    remembered: bool


class Captured(Struct, array_like=True):
    """One capture: a frame of a `captures` record."""

    chatbot_id: Uuid
    conversation_id: Uuid
    external_id: str
    received_at: ReceivedAt
    analysis: bool
    messages: Annotated[list[CapturedMessage], Meta(max_length=MAX_MESSAGES)]
    fields: Fields
    remember_days: RememberDays = 0


class CapturesRecord(Struct, array_like=True):
    """What one gateway took for one partition within a few milliseconds.

    Each capture is a frame by itself, so that one that can't be decoded takes no other along.
    A record without captures is a probe: it changes nothing and is answered like any other.
    """

    generation: Annotated[int, Meta(ge=0, le=MAX_GENERATION)]
    reply_partition: Annotated[int, Meta(ge=0, lt=REPLY_PARTITIONS)]
    captures: Annotated[list[bytes], Meta(max_length=MAX_CAPTURES_PER_RECORD)]


class CaptureResult(Struct, array_like=True, gc=False):
    """What became of one capture.

    `stored` is how many of its messages were new, or None where it went to dead-letters.
    `left_out` names the fields that did not fit into the conversation.
    """

    stored: int | None
    left_out: list[str] = []


class RepliesRecord(Struct, array_like=True):
    """The results of one `captures` record, in its order, named by its partition and offset."""

    partition: int
    offset: int
    results: list[CaptureResult]


class NewMessage(Struct, array_like=True, gc=False):
    """A message that was new. `position` orders the messages of a conversation."""

    id: str
    role: Role
    content: str
    sent_at: int
    received_at: int
    position: int


class ConversationState(Struct, array_like=True):
    """All that is known of a conversation, but its messages and their ids.

    `position` is that of the last capture that changed it. `revision` grows with every change,
    also where the state was lost in between. `remember_days` is that capture's; message ids
    introduced before the position `forgotten_before` are forgotten.
    """

    chatbot_id: Uuid
    conversation_id: Uuid
    external_id: str
    revision: int
    position: int
    message_count: int
    first_message_at: int
    last_message_at: int
    created_at: int
    updated_at: int
    fields: Fields
    remember_days: int = 0
    forgotten_before: int = 0


class Change(Struct, array_like=True):
    """What one `captures` record changed in one conversation: a part of a `messages` record.

    `state` is an encoded ConversationState, `messages` an encoded list of NewMessage: the worker
    encodes each once for every topic that carries it.
    """

    conversation_id: bytes
    state: msgspec.Raw
    messages: msgspec.Raw


class AnalysisItem(Struct, array_like=True):
    """New messages of one conversation to analyse: a part of an `analysis` record."""

    chatbot_id: bytes
    conversation_id: bytes
    messages: msgspec.Raw


captures_codec = Codec(CapturesRecord, version=1)
replies_codec = Codec(RepliesRecord, version=1)
messages_codec = Codec(list[Change], version=1)
analysis_codec = Codec(list[AnalysisItem], version=1)

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Encodes what has no version of its own: a part of a versioned record."""

_decode_captured = msgspec.msgpack.Decoder(Captured).decode
decode_state = msgspec.msgpack.Decoder(ConversationState).decode
decode_new_messages = msgspec.msgpack.Decoder(list[NewMessage]).decode


def decode_captured(frame: bytes) -> Captured:
    """Decode one frame of a `captures` record.

    Raises:
        UndecodableError: it is not in a format that this release reads, or nests too deeply to be
            encoded again.

    """
    try:
        captured = _decode_captured(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableError(str(error)) from error
    for values in captured.fields.values():
        for value in values.values():
            if isinstance(value, dict | list) and _nests_deeper(value, MAX_DEPTH):
                raise UndecodableError(f"nested deeper than {MAX_DEPTH}")
    return captured


def _nests_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_nests_deeper(item, levels - 1) for item in items)
