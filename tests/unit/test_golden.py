"""Records as earlier releases wrote them: read as they were meant, and written the same today.

The files are written once per format and then only ever read. A new format version, or one that
got another member, gets files of its own: `python -m tests.unit.test_golden --write` writes those
that are missing.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec
import pytest
from msgspec.structs import replace

from schemas.chatbots import (
    Chatbot,
    ChatbotSettings,
    Generation,
    chatbot_codec,
    generation_codec,
)
from schemas.codec import Codec
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


FORGETFUL = replace(CAPTURED, remember_days=30)
FORGETFUL_STATE = replace(STATE, remember_days=36_500, forgotten_before=2**64 - 256)
CAPTURED_MEMBERS, STATE_MEMBERS = 7, 11
"""Without those for forgetting ids."""


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode(value))


def first(members: int, value: Any) -> bytes:
    """Return a value as it was encoded when it had only so many members."""
    return encode(msgspec.structs.astuple(value)[:members])


class Golden(NamedTuple):
    """A codec, and the value that its file holds; `grown` where more is written today."""

    codec: Codec[Any]
    value: Any
    grown: bool = False


RECORDS = {
    "captures-v1": Golden(
        captures_codec, CapturesRecord(3, 31, [first(CAPTURED_MEMBERS, CAPTURED), b"\xc1"])
    ),
    "captures-v1-forgetting": Golden(
        captures_codec, CapturesRecord(3, 31, [encode(CAPTURED), encode(FORGETFUL)])
    ),
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
            Change(CONVERSATION, msgspec.Raw(first(STATE_MEMBERS, STATE)), raw(NEW)),
            Change(CHATBOT, msgspec.Raw(first(STATE_MEMBERS, STATE)), raw([])),
        ],
    ),
    "messages-v1-forgetting": Golden(
        messages_codec, [Change(CONVERSATION, raw(FORGETFUL_STATE), raw(NEW))]
    ),
    "analysis-v1": Golden(analysis_codec, [AnalysisItem(CHATBOT, CONVERSATION, raw(NEW))]),
    "changelog-state-v1": Golden(state_codec, STATE, grown=True),
    "changelog-state-v1-forgetting": Golden(state_codec, FORGETFUL_STATE),
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
    "chatbots-v1-forgetting": Golden(
        chatbot_codec,
        Chatbot(
            id="00010203-0405-0607-0809-0a0b0c0d0e0f",
            name="Shop",
            key_sha256=bytes(range(32)),
            key_prefix="ob_live_012345",
            created_at=datetime(2025, 1, 1, tzinfo=UTC),
            settings=ChatbotSettings(remember_days=30),
        ),
    ),
    "generation-v1": Golden(generation_codec, Generation(3)),
}

every_record = pytest.mark.parametrize("name", RECORDS)


def path_of(name: str) -> Path:
    return GOLDEN / f"{name}.bin"


@every_record
def test_what_was_written_then_is_read_as_it_was_meant(name: str) -> None:
    codec, value, _ = RECORDS[name]
    assert codec.decode(path_of(name).read_bytes()) == value


@pytest.mark.parametrize("name", [name for name in RECORDS if not RECORDS[name].grown])
def test_what_is_written_today_is_what_was_written_then(name: str) -> None:
    codec, value, _ = RECORDS[name]
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


@pytest.mark.parametrize(
    ("value", "members"), [(FORGETFUL, CAPTURED_MEMBERS), (FORGETFUL_STATE, STATE_MEMBERS)]
)
def test_what_is_written_today_is_read_by_the_release_before(value: Any, members: int) -> None:
    fields = [(name, type_) for name, type_ in get_type_hints(type(value)).items()][:members]
    before = msgspec.defstruct("Before", fields, array_like=True)
    decoded = msgspec.msgpack.decode(encode(value), type=before)
    assert msgspec.structs.astuple(decoded) == msgspec.structs.astuple(value)[:members]


def write_missing() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, (codec, value, _) in RECORDS.items():
        if not path_of(name).exists():
            path_of(name).write_bytes(codec.encode(value))


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write_missing()
