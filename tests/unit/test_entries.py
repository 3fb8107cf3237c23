"""Keys of the conversations table: what they sort by, and that kinds never meet."""

import time
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import sizes
from schemas.codec import UndecodableError
from schemas.records import ConversationState, Fields, encode
from streams.entries import (
    changelog_ids_key,
    changelog_state_key,
    id_part,
    introduced_codec,
    local_state,
    message_prefix,
    replay_entry,
    state_codec,
    state_key,
)
from streams.upsert import merge

CONVERSATION = bytes(range(16))


def test_keys_are_laid_out_as_they_always_were() -> None:
    assert state_key(CONVERSATION) == b"s" + CONVERSATION
    assert message_prefix(CONVERSATION) == b"m" + CONVERSATION
    assert changelog_state_key(CONVERSATION, 258) == b"s" + CONVERSATION + bytes(6) + b"\1\2"
    assert changelog_ids_key(CONVERSATION, 258) == b"i" + CONVERSATION + bytes(6) + b"\1\2"
    assert local_state(258, b"state") == bytes(6) + b"\1\2state"


def test_ids_are_remembered_as_they_always_were() -> None:
    assert id_part("msg_001") == b"msg_001"
    assert id_part("ü" * 16) == ("ü" * 16).encode()
    assert id_part("x" * 33).hex() == "ffe2b3277a8d1b00ddc6393c960dd0f8e7"


def state(revision: int = 5, **changed: Any) -> bytes:
    made = ConversationState(bytes(16), CONVERSATION, "external", revision, 128, 1, 1, 1, 1, 1, {})
    return state_codec.encode(replace(made, **changed))


def test_a_state_replaces_an_older_one_and_never_a_newer_one() -> None:
    key = changelog_state_key(CONVERSATION, 5)
    expected = {state_key(CONVERSATION): local_state(5, state())}
    assert replay_entry(key, state(), 4) == expected
    assert replay_entry(key, state(), 5) == expected
    assert replay_entry(key, state(), 6) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", None),
        (b"s" + CONVERSATION, None),
        (changelog_state_key(CONVERSATION, 5) + b"\0", None),
        (b"m" + changelog_ids_key(CONVERSATION, 128)[1:], None),
        (changelog_state_key(CONVERSATION, 5), b""),
        (changelog_state_key(CONVERSATION, 5), state(6)),
        (changelog_state_key(CONVERSATION, 5), state(conversation_id=bytes(16))),
        (changelog_state_key(CONVERSATION, 5), state(position=-1)),
        (changelog_state_key(CONVERSATION, 5), state(fields={"other": {}})),
        (changelog_ids_key(CONVERSATION, 129), introduced_codec.encode([])),
        (changelog_ids_key(CONVERSATION, 128), b"\x01"),
        (changelog_ids_key(CONVERSATION, 128), introduced_codec.encode([(-1, b"a")])),
        (changelog_ids_key(CONVERSATION, 128), introduced_codec.encode([(100, b"a")])),
        (changelog_ids_key(CONVERSATION, 128), introduced_codec.encode([(0, bytes(33))])),
    ],
)
def test_an_entry_that_no_worker_wrote_is_undecodable(key: bytes, value: bytes | None) -> None:
    with pytest.raises(UndecodableError):
        replay_entry(key, value, 0)


def test_a_tombstone_removes_the_newest_state_and_never_a_newer_one() -> None:
    key = changelog_state_key(CONVERSATION, 5)
    assert replay_entry(key, None, 5) == {state_key(CONVERSATION): None}
    assert replay_entry(key, None, 6) == {}


def test_ids_are_replayed_at_the_positions_that_introduced_them() -> None:
    value = introduced_codec.encode([(0, b"a"), (3, b"b")])
    assert replay_entry(changelog_ids_key(CONVERSATION, 256), value, 0) == {
        message_prefix(CONVERSATION) + b"a": bytes(6) + b"\1\0",
        message_prefix(CONVERSATION) + b"b": bytes(6) + b"\1\3",
    }
    assert replay_entry(changelog_ids_key(CONVERSATION, 256), None, 0) == {}


def test_many_fields_that_do_not_fit_take_no_long_time() -> None:
    stored: Fields = {"organization": {f"{number:05}": 1 for number in range(9_000)}}
    assert len(encode(stored)) < sizes.FIELDS
    sent: Fields = {"organization": {f"{number:05}": 1 for number in range(9_000, 14_000)}}
    begun = time.process_time()
    _, left_out = merge(stored, sent)
    assert len(left_out) > 1_000
    assert time.process_time() - begun < 0.25
