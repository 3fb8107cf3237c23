"""Keys of the conversations table: what they sort by, and that kinds never meet."""

import time
from collections.abc import Callable
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
    replaced_entry,
    replay_entry,
    state_codec,
    state_key,
)
from streams.forgetting import DAY_MICROSECONDS
from streams.upsert import merge

CONVERSATION = bytes(range(16))
STATE = ConversationState(bytes(16), CONVERSATION, "c", 5, 0, 0, 0, 0, 0, 0, {})


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


Known = Callable[[bytes], bytes | None]


def nothing(_key: bytes) -> None:
    return None


def known(revision: int) -> Known:
    return {state_key(CONVERSATION): local_state(revision, b"")}.get


def state(revision: int = 5, **changed: Any) -> bytes:
    return state_codec.encode(replace(STATE, revision=revision, **changed))


def test_a_state_replaces_an_older_one_and_never_a_newer_one() -> None:
    key = changelog_state_key(CONVERSATION, 5)
    expected = {state_key(CONVERSATION): local_state(5, state())}
    assert replay_entry(key, state(), known(4)) == expected
    assert replay_entry(key, state(), known(5)) == expected
    assert replay_entry(key, state(), known(6)) == {}
    assert replay_entry(key, state(), nothing) == expected


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
        (changelog_state_key(CONVERSATION, 5), state(message_count=2**62)),
        (changelog_state_key(CONVERSATION, 2**62), state(2**62)),
        (changelog_state_key(CONVERSATION, 5), state(remember_days=-1)),
        (changelog_state_key(CONVERSATION, 5), state(remember_days=36_501)),
        (changelog_state_key(CONVERSATION, 5), state(forgotten_before=-1)),
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
        replay_entry(key, value, nothing)


def test_a_tombstone_removes_the_newest_state_and_never_a_newer_one() -> None:
    key = changelog_state_key(CONVERSATION, 5)
    assert replay_entry(key, None, known(5)) == {state_key(CONVERSATION): None}
    assert replay_entry(key, None, known(6)) == {}


def test_a_state_whose_ids_will_be_forgotten_is_replayed_with_the_day_they_are_due() -> None:
    value = state(remember_days=8, updated_at=3 * DAY_MICROSECONDS + 1)
    assert replay_entry(changelog_state_key(CONVERSATION, 5), value, nothing) == {
        state_key(CONVERSATION): local_state(5, value),
        b"d" + (3 + 8 + 10).to_bytes(4) + CONVERSATION: b"",
    }
    value = state(forgotten_before=256, updated_at=3 * DAY_MICROSECONDS + 1)
    changes = replay_entry(changelog_state_key(CONVERSATION, 5), value, nothing)
    assert b"d" + (3 + 10).to_bytes(4) + CONVERSATION in changes


def test_ids_are_replayed_at_the_positions_that_introduced_them() -> None:
    value = introduced_codec.encode([(0, b"a"), (3, b"b")])
    assert replay_entry(changelog_ids_key(CONVERSATION, 256), value, nothing) == {
        message_prefix(CONVERSATION) + b"a": bytes(6) + b"\1\0",
        message_prefix(CONVERSATION) + b"b": bytes(6) + b"\1\3",
    }
    assert replay_entry(changelog_ids_key(CONVERSATION, 256), None, nothing) == {}


def test_of_an_id_that_was_introduced_again_the_newer_position_stays() -> None:
    value = introduced_codec.encode([(0, b"a")])
    newer = {message_prefix(CONVERSATION) + b"a": (512).to_bytes(8)}
    assert replay_entry(changelog_ids_key(CONVERSATION, 512), value, newer.get) == {}
    assert replay_entry(changelog_ids_key(CONVERSATION, 256), value, newer.get) == dict(
        [replaced_entry(CONVERSATION, (256).to_bytes(8))]
    )
    assert replay_entry(changelog_ids_key(CONVERSATION, 1024), value, newer.get) == {
        message_prefix(CONVERSATION) + b"a": (1024).to_bytes(8),
        **dict([replaced_entry(CONVERSATION, (512).to_bytes(8))]),
    }


def test_many_fields_that_do_not_fit_take_no_long_time() -> None:
    stored: Fields = {"organization": {f"{number:05}": 1 for number in range(9_000)}}
    assert len(encode(stored)) < sizes.FIELDS
    sent: Fields = {"organization": {f"{number:05}": 1 for number in range(9_000, 14_000)}}
    begun = time.process_time()
    _, left_out = merge(stored, sent)
    assert len(left_out) > 1_000
    assert time.process_time() - begun < 0.25
