"""Records as each release wrote them: read as they were meant, and written the same today.

A release's folder holds a file for each kind of value that it writes in another way than the
release before it. Once the release is out, its files are only read. `python -m
tests.unit.test_golden --write` writes those that are missing.
"""

import importlib
import pkgutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

import analysis
import gateway
import openbat
import schemas
import sinks
import streams
from analysis.llm import Tally
from analysis.protocol import Finding
from schemas.analyses import Analysed, Analysis
from schemas.chatbots import Chatbot, ChatbotSettings, Generation
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
    Said,
    encode,
)
from streams.context import Context
from tests.upgrade.new_formats import EVERY_FORMAT

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
CHATBOT_ENTRY = Chatbot(
    id="00010203-0405-0607-0809-0a0b0c0d0e0f",
    name="Shop",
    key_sha256=bytes(range(32)),
    key_prefix="ob_live_012345",
    created_at=datetime(2025, 1, 1, 12, 30, 0, 123456, tzinfo=UTC),
    state="archived",
    schema={"seats": "number", "vip": "boolean", "note": "string"},
    settings=ChatbotSettings(rate_limit="600/minute", analysis=False),
)
SAID = [
    Said("msg_000", "user", "y" * 300, -TIME, 2**40),
    Said("0193f1a0-0000-7000-8000-000000000001", "assistant", "Hallo, grüß dich", TIME, 2**63),
]
ANALYSES = [
    Analysis(
        "msg_001", "offline", "1+vader", TIME, 2**63 + 1, 0, TIME + 2,
        (Finding("sentiment", "negative", (), -0.25, "“never” 😠"), Finding("flags")),
    ),
    Analysis(
        "msg_001", "llm:m/1", "p3", TIME, 2**63 + 1, 0, TIME + 2,
        (Finding("topics", labels=("order", "größe")),), TIME + 3,
    ),
    Analysis(
        "", "llm:m/1", "p3", TIME, 2**64 - 1, TIME + 1, TIME + 2,
        (Finding("resolution", "partially", reasoning="x" * 300),),
    ),
]  # fmt: skip
"""A message's, a message's of a re-analysis, and a conversation's."""


def whole(shape: Any, *members: Any) -> Any:
    """Return a record whose parts are decoded, as `tests.upgrade.formats.read` gives it."""
    return shape(*members)


RECORDS = {
    "0.1.0/captures": whole(CapturesRecord, 3, 31, [CAPTURED, b"\xc1"]),
    "0.1.0/replies": RepliesRecord(
        7,
        2**40 - 1,
        [CaptureResult(3), CaptureResult(None), CaptureResult(0, ["custom.note", "user.id"])],
    ),
    "0.1.0/messages": [
        whole(Change, CONVERSATION, STATE, NEW),
        whole(Change, CHATBOT, STATE, []),
    ],
    "0.1.0/analysis": [whole(AnalysisItem, CHATBOT, CONVERSATION, NEW)],
    "0.1.0/changelog-state": STATE,
    "0.1.0/changelog-ids": [(0, b"msg_001"), (99, b"\xff" + bytes(16))],
    "0.1.0/chatbots": CHATBOT_ENTRY,
    "0.1.0/generation": Generation(3),
    "0.2.0/captures": whole(CapturesRecord, 3, 31, [FORGETFUL, b"\xc1"]),
    "0.2.0/messages": [
        whole(Change, CONVERSATION, FORGETFUL_STATE, NEW),
        whole(Change, CHATBOT, FORGETFUL_STATE, []),
    ],
    "0.2.0/changelog-state": FORGETFUL_STATE,
    "0.2.0/chatbots": replace(
        CHATBOT_ENTRY,
        settings=replace(
            CHATBOT_ENTRY.settings,
            remember_days=30,
            analysis_off=("sentiment", "topics"),
            intents=("return", "größe ändern"),
            flags=("vip",),
            tokens_per_day=2**40,
            cost_per_day=2.5,
        ),
        first_capture_at=datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    ),
    "0.2.0/analysis": [
        whole(AnalysisItem, CHATBOT, CONVERSATION, NEW, TIME + 1, SAID, ["offline"], TIME + 3)
    ],
    "0.2.0/analyses": [Analysed(CHATBOT, CONVERSATION, ANALYSES), Analysed(CHATBOT, CHATBOT, [])],
    "0.2.0/changelog-context": Context(
        CHATBOT, CONVERSATION, TIME + 1, 2**64 - 1, TIME, True, TIME + 4, 2**40 - 1, 5, SAID
    ),
    "0.2.0/changelog-found": (
        Finding("sentiment", "negative", (), -0.25, "“never” 😠"),
        Finding("topics", labels=("order", "größe")),
        Finding("flags"),
    ),
    "0.2.0/spending": Tally("analysis-0193", CHATBOT, 20_089, 2**40, 300),
}
"""Release by release, from the oldest on. A kind's newer record is the one before it with what is
new in it, so that a release that knows nothing of that reads the older one."""

NEWEST = {name.partition("/")[2]: name for name in RECORDS}
"""The name of each kind's newest record: what this release writes."""

every_record = pytest.mark.parametrize("name", RECORDS)
every_kind = pytest.mark.parametrize("kind", EVERY_FORMAT)


def path_of(name: str) -> Path:
    return GOLDEN / f"{name}.bin"


def kind_of(name: str) -> str:
    return name.partition("/")[2]


def grown(value: Any) -> Any:
    """Return a value as a later release may write it: each object has one more member."""
    if isinstance(value, list | tuple):
        return type(value)(grown(item) for item in value)
    if not isinstance(value, msgspec.Struct):
        return value
    members = {name: grown(getattr(value, name)) for name in value.__struct_fields__}
    if not value.__struct_config__.array_like:
        return {**members, "later": "member"}
    array = [*members.values(), "later member"]
    return encode(array) if isinstance(value, Captured) else array


@every_record
def test_what_was_written_then_is_read_as_it_was_meant(name: str) -> None:
    assert EVERY_FORMAT[kind_of(name)].read(path_of(name).read_bytes()) == RECORDS[name]


@every_kind
def test_what_is_written_today_is_what_the_newest_file_holds(kind: str) -> None:
    name = NEWEST[kind]
    assert EVERY_FORMAT[kind].write(RECORDS[name]) == path_of(name).read_bytes()


def test_a_dead_letters_headers_are_read_and_written_as_they_were_then() -> None:
    """Its value is what could not be processed: of any format, or of none."""
    letter = DeadLetter("rejected_row", "ValueError: out of range", Source("messages", 7, 2**40, 3))
    headers = [
        (name.decode(), text)
        for name, _, text in (
            line.partition(b": ")
            for line in (GOLDEN / "0.2.0" / "dead-letter.headers").read_bytes().splitlines()
        )
    ]
    assert DeadLetter.from_headers(headers) == letter
    assert letter.headers() == headers


def test_every_golden_file_is_tested() -> None:
    files = {str(path.relative_to(GOLDEN).with_suffix("")) for path in GOLDEN.rglob("*.bin")}
    assert files == RECORDS.keys()


def test_every_codec_has_golden_files() -> None:
    codecs = {
        id(found)
        for room in (analysis, gateway, openbat, schemas, sinks, streams)
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")
        if not module.name.endswith("__main__")
        for found in vars(importlib.import_module(module.name)).values()
        if isinstance(found, Codec)
    }
    assert codecs == {id(known.codec) for known in EVERY_FORMAT.values()}


@every_kind
def test_members_that_a_later_release_adds_are_passed_over(kind: str) -> None:
    value = RECORDS[NEWEST[kind]]
    version = EVERY_FORMAT[kind].write(value)[:1]
    later = version + encode(grown(value))
    assert EVERY_FORMAT[kind].read(later) == value


def test_members_are_added_to_all_that_may_grow() -> None:
    """The ids of a capture are pairs, and what a pair holds is fixed: they need a new version."""
    newest = {kind: RECORDS[NEWEST[kind]] for kind in EVERY_FORMAT}
    fixed = {kind for kind, value in newest.items() if grown(value) == value}
    assert fixed == {"changelog-ids"}


def write_missing() -> None:
    for name, value in RECORDS.items():
        path_of(name).parent.mkdir(parents=True, exist_ok=True)
        if not path_of(name).exists():
            path_of(name).write_bytes(EVERY_FORMAT[kind_of(name)].write(value))


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write_missing()
