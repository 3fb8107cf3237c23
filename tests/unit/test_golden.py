"""Records as earlier releases wrote them: read as they were meant, and written the same today.

The files are written once per format version and then only ever read. A new format version gets
files of its own: `python -m tests.unit.test_golden --write` writes those that are missing.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from schemas.chatbots import (
    Chatbot,
    ChatbotSettings,
    Generation,
    chatbot_codec,
    generation_codec,
)
from schemas.codec import Codec
from schemas.dead_letters import DeadLetter, Source
from schemas.records import (
    AnalysisItem,
    Captured,
    CapturedMessage,
    CaptureResult,
    CapturesRecord,
    Change,
    ConversationState,
    NewMessage,
    RepliesRecord,
    analysis_codec,
    captures_codec,
    decode_captured,
    decode_new_messages,
    decode_state,
    encode,
    messages_codec,
    replies_codec,
)
from streams.entries import introduced_codec, state_codec

GOLDEN = Path(__file__).parent.parent / "golden"

CHATBOT = bytes(range(16))
CONVERSATION = bytes(range(16, 32))
TIME = 1_735_689_600_123_456

CAPTURED = Captured(
    chatbot_id=CHATBOT,
    conversation_id=CONVERSATION,
    external_id="order-4711-ü",
    received_at=TIME,
    analysis=True,
    messages=[
        CapturedMessage("msg_001", "user", "Where is my order? 📦", TIME - 5, True),
        CapturedMessage("0193f1a0-0000-7000-8000-000000000000", "assistant", "", TIME, False),
        CapturedMessage("msg_003", "system", "x" * 300, -TIME, True),
    ],
    fields={
        "user": {"id": "u1", "mrr": 99.5, "createdAt": "2020-02-29T12:00:00Z", "tags": ["a", {}]},
        "custom": {"seats": 2**64 - 1, "debt": -(2**63), "vip": True, "note": None},
    },
)
NEW = [
    NewMessage("msg_001", "user", "Where is my order? 📦", TIME - 5, TIME, 2**63 + 1),
    NewMessage("msg_003", "system", "x" * 300, -TIME, TIME, 2**64 - 1),
]
STATE = ConversationState(
    chatbot_id=CHATBOT,
    conversation_id=CONVERSATION,
    external_id="order-4711-ü",
    revision=TIME + 1,
    position=2**64 - 128,
    message_count=3,
    first_message_at=-TIME,
    last_message_at=TIME,
    created_at=TIME,
    updated_at=TIME + 1,
    fields=CAPTURED.fields,
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode(value))


class HeadersCodec:
    """Dead letters' headers, a line each."""

    def encode(self, value: DeadLetter) -> bytes:
        return b"".join(name.encode() + b": " + text + b"\n" for name, text in value.headers())

    def decode(self, data: bytes) -> DeadLetter:
        names_and_texts = (line.partition(b": ") for line in data.splitlines())
        return DeadLetter.from_headers((name.decode(), text) for name, _, text in names_and_texts)


class Golden(NamedTuple):
    """A codec, and the value that its file holds."""

    codec: Codec[Any] | HeadersCodec
    value: Any


RECORDS = {
    "captures-v1": Golden(captures_codec, CapturesRecord(3, 31, [encode(CAPTURED), b"\xc1"])),
    "replies-v1": Golden(
        replies_codec,
        RepliesRecord(
            7,
            2**40 - 1,
            [CaptureResult(3), CaptureResult(None), CaptureResult(0, ["custom.note", "user.id"])],
        ),
    ),
    "messages-v1": Golden(
        messages_codec,
        [
            Change(CONVERSATION, raw(STATE), raw(NEW)),
            Change(CHATBOT, raw(STATE), raw([])),
        ],
    ),
    "analysis-v1": Golden(analysis_codec, [AnalysisItem(CHATBOT, CONVERSATION, raw(NEW))]),
    "changelog-state-v1": Golden(state_codec, STATE),
    "changelog-ids-v1": Golden(introduced_codec, [(0, b"msg_001"), (99, b"\xff" + bytes(16))]),
    "chatbots-v1": Golden(
        chatbot_codec,
        Chatbot(
            id="00010203-0405-0607-0809-0a0b0c0d0e0f",
            name="Shop",
            key_sha256=bytes(range(32)),
            key_prefix="ob_live_012345",
            created_at=datetime(2025, 1, 1, 12, 30, 0, 123456, tzinfo=UTC),
            state="archived",
            schema={"seats": "number", "vip": "boolean", "note": "string"},
            settings=ChatbotSettings(rate_limit="600/minute", analysis=False),
        ),
    ),
    "generation-v1": Golden(generation_codec, Generation(3)),
    "dead-letter-v1": Golden(
        HeadersCodec(),
        DeadLetter("rejected_row", "ValueError: out of range", Source("messages", 7, 2**40, 3)),
    ),
}

every_record = pytest.mark.parametrize("name", RECORDS)


def path_of(name: str) -> Path:
    return GOLDEN / f"{name}.bin"


@every_record
def test_what_was_written_then_is_read_as_it_was_meant(name: str) -> None:
    codec, value = RECORDS[name]
    assert codec.decode(path_of(name).read_bytes()) == value


@every_record
def test_what_is_written_today_is_what_was_written_then(name: str) -> None:
    codec, value = RECORDS[name]
    assert codec.encode(value) == path_of(name).read_bytes()


def test_every_golden_file_is_tested() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == RECORDS.keys()


def test_a_capture_within_its_record_is_read_as_it_was_meant() -> None:
    record = captures_codec.decode(path_of("captures-v1").read_bytes())
    assert decode_captured(record.captures[0]) == CAPTURED


def test_parts_of_outputs_are_read_as_they_were_meant() -> None:
    change, without_messages = messages_codec.decode(path_of("messages-v1").read_bytes())
    assert decode_state(change.state) == STATE
    assert decode_new_messages(change.messages) == NEW
    assert decode_new_messages(without_messages.messages) == []
    (item,) = analysis_codec.decode(path_of("analysis-v1").read_bytes())
    assert decode_new_messages(item.messages) == NEW


def write_missing() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, (codec, value) in RECORDS.items():
        if not path_of(name).exists():
            path_of(name).write_bytes(codec.encode(value))


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write_missing()
