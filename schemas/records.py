"""The records that travel through Kafka, topic by topic.

All are MessagePack arrays: member names cost nothing on the wire, so a member may only ever be
added at the end, with a default. Times are microseconds since the Unix epoch, UTC. Ids of
conversations and chatbots are the 16 bytes of a UUID.

A frame of a `captures` record and the parts of `messages` and `analysis` records have no version
byte: theirs is that of the record around them. A frame that goes to dead-letters by itself is in
the format of version 1, the only one so far.

The bounds are those that the workers' arithmetic and ClickHouse's columns rely on: what does not
keep them does not decode, and goes to dead-letters instead of ending a worker.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from schemas import sizes
from schemas.capture import MAX_DEPTH, MAX_ID_CHARACTERS, MAX_MESSAGES, Role
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
Id = Annotated[str, Meta(max_length=MAX_ID_CHARACTERS)]
MOST_COUNTED = 2**62
Number = Annotated[int, Meta(ge=0, le=MOST_COUNTED)]
"""What is counted up, and must still fit into 64 bits then."""
Position = Annotated[int, Meta(ge=0)]

MAX_SAID = 32
"""Messages that may come along as what was said before."""
MAX_ANALYZERS = 32
AnalyzerName = Annotated[str, Meta(min_length=1, max_length=64)]

T = TypeVar("T")

Fields = dict[str, dict[str, Any]]
"""What is known about a conversation: an object of fields in each of GROUPS."""

GROUPS = frozenset({"user", "organization", "session", "custom"})
_JSON_SCALARS = frozenset({str, int, float, bool})


class CapturedMessage(Struct, array_like=True, gc=False):
    """One message as the gateway took it.

    `remembered` is false for an id that the gateway made afresh: no later message can carry it,
    so the worker need not remember it.
    """

    id: Id
    role: Role
    content: str
    sent_at: SentAt
    remembered: bool


class Captured(Struct, array_like=True):
    """One capture: a frame of a `captures` record."""

    chatbot_id: Uuid
    conversation_id: Uuid
    external_id: Id
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

    stored: Annotated[int, Meta(ge=0, le=MAX_MESSAGES)] | None
    left_out: list[str] = []


class RepliesRecord(Struct, array_like=True):
    """The results of one `captures` record, in its order, named by its partition and offset."""

    partition: int
    offset: int
    results: list[CaptureResult]


class Turn(Struct, array_like=True, frozen=True, gc=False):
    """A message as analyzers see it. `id` is the message's, `sent_at` microseconds since 1970."""

    id: Id
    role: Role
    content: str
    sent_at: SentAt


class NewMessage(Turn, array_like=True, frozen=True, gc=False):
    """A message that was new. `position` orders the messages of a conversation."""

    received_at: ReceivedAt
    position: Position


class ConversationState(Struct, array_like=True):
    """All that is known of a conversation, but its messages and their ids.

    `position` is that of the last capture that changed it. `revision` grows with every change,
    also where the state was lost in between. `remember_days` is that capture's; message ids
    introduced before the position `forgotten_before` are forgotten.
    """

    chatbot_id: Uuid
    conversation_id: Uuid
    external_id: Id
    revision: Number
    position: Position
    message_count: Number
    first_message_at: SentAt
    last_message_at: SentAt
    created_at: ReceivedAt
    updated_at: ReceivedAt
    fields: Fields
    remember_days: RememberDays = 0
    forgotten_before: Position = 0


class Change(Struct, array_like=True):
    """What one `captures` record changed in one conversation: a part of a `messages` record.

    `state` is an encoded ConversationState, `messages` an encoded list of NewMessage: the worker
    encodes each once for every topic that carries it.
    """

    conversation_id: Uuid
    state: msgspec.Raw
    messages: msgspec.Raw


class Said(Turn, array_like=True, frozen=True, gc=False):
    """A message as it is remembered for the analysis of later ones: its content may be cut."""

    position: Position


class AnalysisItem(Struct, array_like=True, gc=False):
    """What is to be analysed of one conversation: a part of an `analysis` record.

    `messages` is an encoded list of NewMessage: those to analyse, or where there are none, the
    conversation as a whole. `revision` is the conversation's that they belong to.

    From the conversations worker, `said` is None: the analysis worker knows what was said before.
    An item that was put off, sent again or made for a re-analysis brings it along. `analyzers`
    names those that are asked, none for all; `run` is 0, or the number of a re-analysis.
    """

    chatbot_id: Uuid
    conversation_id: Uuid
    messages: msgspec.Raw
    revision: Number = 0
    said: Annotated[list[Said], Meta(max_length=MAX_SAID)] | None = None
    analyzers: Annotated[list[AnalyzerName], Meta(max_length=MAX_ANALYZERS)] = []
    run: Number = 0


captures_codec = Codec(CapturesRecord, version=1)
replies_codec = Codec(RepliesRecord, version=1)
messages_codec = Codec(list[Change], version=1)
analysis_codec = Codec(list[AnalysisItem], version=1)

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Encodes what has no version of its own: a part of a versioned record."""

_captured = msgspec.msgpack.Decoder(Captured)
_state = msgspec.msgpack.Decoder(ConversationState)
_new_messages = msgspec.msgpack.Decoder(list[NewMessage])


def decode_captures(value: bytes) -> CapturesRecord:
    """Decode a `captures` record; its frames are left for `decode_captured`.

    Raises:
        UndecodableError: it is not in a format that this release reads, or larger than any that a
            gateway sends.

    """
    if len(value) > sizes.CAPTURES_RECORD:
        raise UndecodableError(f"over {sizes.CAPTURES_RECORD} bytes")
    return captures_codec.decode(value)


def decode_captured(frame: bytes) -> Captured:
    """Decode one frame of a `captures` record.

    Raises:
        UndecodableError: it is not in a format that this release reads, larger than any that a
            gateway sends, or has fields that can't be written as JSON.

    """
    if len(frame) > sizes.CAPTURE:
        raise UndecodableError(f"over {sizes.CAPTURE} bytes")
    captured = _decode(_captured.decode, frame)
    check_fields(captured.fields)
    return captured


def decode_state(part: bytes | msgspec.Raw) -> ConversationState:
    """Decode the state of a Change. Raises UndecodableError."""
    return _decode(_state.decode, part)


def decode_new_messages(part: bytes | msgspec.Raw) -> list[NewMessage]:
    """Decode the messages of a Change, or of an AnalysisItem. Raises UndecodableError."""
    return _decode(_new_messages.decode, part)


def check_fields(fields: Fields) -> None:
    """Take the four groups, and in them what JSON can hold.

    Raises:
        UndecodableError: it holds something else, or nests too deeply to be encoded again.

    """
    for group, values in fields.items():
        if group not in GROUPS:
            raise UndecodableError("unknown group of fields")
        for value in values.values():
            if type(value) is not str:
                _check_json(value, MAX_DEPTH)


def _check_json(value: Any, levels: int) -> None:
    if isinstance(value, dict | list):
        if not levels:
            raise UndecodableError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, dict):
            if not all(type(name) is str for name in value):
                raise UndecodableError("a member's name is no string")
            value = value.values()
        for item in value:
            _check_json(item, levels - 1)
    elif value is not None and type(value) not in _JSON_SCALARS:
        raise UndecodableError(f"{type(value).__name__} is no type of JSON's")


def _decode(decode: Callable[[bytes | msgspec.Raw], T], data: bytes | msgspec.Raw) -> T:
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableError(str(error)) from error
