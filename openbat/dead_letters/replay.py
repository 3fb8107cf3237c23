"""What replaying a dead letter sends: to where it came from, so that it is deduplicated there."""

import msgspec
from msgspec import Struct

from schemas import topics
from schemas.analyses import analyses_codec
from schemas.codec import UndecodableError
from schemas.dead_letters import WHOLE_RECORD, DeadLetter, detail_of
from schemas.records import (
    CapturesRecord,
    analysis_codec,
    captures_codec,
    decode_captured,
    decode_new_messages,
    encode,
    messages_codec,
)
from sinks.rows import RowBatch

REPLY_PARTITION = 0
"""Nobody waits for the replies, so any will do."""


class RefusedError(Exception):
    """Raised for a letter that can't be replayed; says why."""


class Replay(Struct):
    """What a letter's replay sends: a record of its source topic, and the letters that remain.

    `parts` is how many captures or changes it sends. The letters are of the parts of a whole record
    that can't be decoded, each under its own source, so that a second replay makes the same ones.
    """

    value: bytes
    parts: int
    remaining: list[tuple[DeadLetter, bytes]]


def replay_of(letter: DeadLetter, value: bytes, generation: int) -> Replay:
    """Return what replaying a letter sends, into the source's topic and partition.

    Every message of a capture is marked as remembered, and for ever until its conversation changes
    again, so that its id is stored once however often it is replayed. A row's record may be written
    again as it is: ClickHouse keeps one of each row.

    Args:
        letter: the letter.
        value: its value.
        generation: of the captures topic as it is now.

    Raises:
        RefusedError: this release can't process it either.

    """
    source = letter.source
    try:
        if source.topic == topics.MESSAGES:
            return _of_output(letter, value)
        if source.topic in {topics.ANALYSIS, topics.ANALYSIS_LATER}:
            return _of_analysis(value)
        if source.topic == topics.ANALYSES:
            return Replay(value, len(analyses_codec.decode(value)), [])
        if source.topic == topics.CAPTURES and source.index == WHOLE_RECORD:
            return _of_record(letter, value, generation)
        if source.topic == topics.CAPTURES:
            return _of_frames([_remembered(value)], generation)
    except UndecodableError as error:
        raise RefusedError(f"this release can't decode it either ({detail_of(error)})") from None
    raise RefusedError(f"letters of the topic {source.topic} can't be replayed")


def _of_output(letter: DeadLetter, value: bytes) -> Replay:
    batch = RowBatch()
    rejected = batch.add(value, letter.source.partition, letter.source.offset)
    if rejected and not batch.rows:
        raise UndecodableError(rejected[0].letter.detail)
    undecodable = {part for _, part in rejected}
    changes = [
        change
        for change in messages_codec.decode(value)
        if messages_codec.encode([change]) not in undecodable
    ]
    sent = messages_codec.encode(changes) if rejected else value
    return Replay(sent, len(changes), list(rejected))


def _of_analysis(value: bytes) -> Replay:
    items = analysis_codec.decode(value)
    for item in items:
        decode_new_messages(item.messages)
    return Replay(value, len(items), [])


def _of_record(letter: DeadLetter, value: bytes, generation: int) -> Replay:
    frames = []
    remaining = []
    for index, frame in enumerate(captures_codec.decode(value).captures):
        try:
            frames.append(_remembered(frame))
        except UndecodableError as error:
            source = msgspec.structs.replace(letter.source, index=index)
            part = DeadLetter("undecodable_capture", detail_of(error), source)
            remaining.append((part, frame))
    replay = _of_frames(frames, generation)
    replay.remaining = remaining
    return replay


def _of_frames(frames: list[bytes], generation: int) -> Replay:
    record = CapturesRecord(generation, REPLY_PARTITION, frames)
    return Replay(captures_codec.encode(record), len(frames), [])


def _remembered(frame: bytes) -> bytes:
    captured = decode_captured(frame)
    messages = [msgspec.structs.replace(each, remembered=True) for each in captured.messages]
    # Its days would be counted from a time that is long past, and may be over already.
    return encode(msgspec.structs.replace(captured, messages=messages, remember_days=0))
