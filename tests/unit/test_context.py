"""What is kept of a conversation: its keys, what it is cut to, and what recovery refuses."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from schemas.capture import Role
from schemas.chatbots import ChatbotSettings
from schemas.codec import UndecodableError
from schemas.dead_letters import Source
from schemas.records import AnalysisItem, NewMessage, Said
from streams.asking import NO_MESSAGES, of_conversation, of_messages
from streams.context import (
    SAID_CHARACTERS,
    SAID_MESSAGES,
    Quiet,
    changes,
    context_codec,
    context_key,
    decode_context,
    due_key,
    found_key,
    found_prefix,
    judged,
    replay_entry,
    take_in,
)

CHATBOT = bytes(16)
CONVERSATION = bytes(range(16))
QUIET = Quiet(judged=10, forgotten=100)
ITEM = AnalysisItem(CHATBOT, CONVERSATION, NO_MESSAGES, revision=77)
SOURCE = Source("analysis", 1, 7, 3)


def message(position: int, content: str = "hi", role: Role = "user") -> NewMessage:
    return NewMessage(f"m{position}", role, content, 3, 50, position)


CONTEXT = take_in(None, ITEM, [message(258)], 7, 3, QUIET).context
LATER = take_in(CONTEXT, ITEM, [message(259)], 8, 0, QUIET).context
JUDGED = judged(CONTEXT, QUIET)
ORDER = bytes(6) + b"\1\2"


def known(entry: bytes | None) -> Callable[[bytes], bytes | None]:
    return {context_key(CONVERSATION): entry}.get


def test_keys_are_laid_out_as_they_always_were() -> None:
    assert context_key(CONVERSATION) == b"c" + CONVERSATION
    assert found_prefix(CONVERSATION) == b"f" + CONVERSATION
    assert due_key(CONTEXT) == b"q" + (60).to_bytes(8) + CONVERSATION
    assert due_key(JUDGED) == b"q" + (150).to_bytes(8) + CONVERSATION
    ((key, value),) = changes(None, CONTEXT).changelog
    assert key == b"c" + CONVERSATION + ORDER + b"\0"
    assert value == context_codec.encode(CONTEXT)
    found = found_key(CONVERSATION, 258, "llm", "1", whole=False)
    assert found.hex() == "66" + CONVERSATION.hex() + "0000000000000102" + "70efc6db" + "4cff4e98"


def test_what_was_found_has_a_key_for_each_analyzer_version_and_subject() -> None:
    keys = {
        found_key(CONVERSATION, position, analyzer, version, whole=whole)
        for position in (1, 2)
        for analyzer in ("a", "ab")
        for version in ("1", "b1")
        for whole in (True, False)
    }
    assert len(keys) == 16


def test_a_context_is_that_of_its_newest_message() -> None:
    assert (CONTEXT.position, CONTEXT.revision, CONTEXT.received_at) == (258, 77, 50)
    assert (CONTEXT.offset, CONTEXT.number, CONTEXT.due, CONTEXT.judged) == (7, 3, 60, False)
    assert CONTEXT.said == [Said("m258", "user", "hi", 3, 258)]
    assert decode_context(changes(None, CONTEXT).local[context_key(CONVERSATION)]) == CONTEXT
    assert decode_context(None) is None


def test_a_message_that_comes_with_an_earlier_time_puts_nothing_forward() -> None:
    early = NewMessage("m259", "user", "hi", 3, 40, 259)
    grown = take_in(CONTEXT, replace(ITEM, revision=5), [early], 8, 0, QUIET).context
    assert (grown.received_at, grown.due, grown.revision) == (50, 60, 77)


def test_an_item_of_the_release_before_has_a_revision_too() -> None:
    taken = take_in(None, replace(ITEM, revision=0), [message(1)], 0, 0, QUIET)
    assert taken.context.revision == taken.context.received_at == 50


def test_long_messages_are_cut_and_only_a_dozen_are_remembered() -> None:
    new = [message(position, "ü" * 2_000) for position in range(1, 31)]
    grown = take_in(None, ITEM, new, 0, 0, QUIET)
    assert [each.position for each in grown.context.said] == list(range(31 - SAID_MESSAGES, 31))
    assert {each.content for each in grown.context.said} == {"ü" * SAID_CHARACTERS}
    assert [len(said) for said in grown.before] == [min(at, SAID_MESSAGES) for at in range(30)]


def test_a_conversation_that_goes_on_is_to_be_judged_again() -> None:
    grown = take_in(JUDGED, ITEM, [message(259)], 8, 0, QUIET).context
    assert not grown.judged
    assert take_in(JUDGED, ITEM, [message(258)], 8, 0, QUIET).context is JUDGED


def test_what_replaces_a_context_comes_before_what_it_replaces_goes() -> None:
    for before, after in ((CONTEXT, LATER), (CONTEXT, JUDGED)):
        (newer, value), (older, gone) = changes(before, after).changelog
        assert newer > older
        assert value == context_codec.encode(after)
        assert gone is None
    changed = changes(JUDGED, None)
    assert [value for _, value in changed.changelog] == [None]
    assert changed.local == {context_key(CONVERSATION): None, due_key(JUDGED): None}


def test_an_older_entry_changes_nothing_and_neither_does_its_end() -> None:
    newer = known(changes(None, LATER).local[context_key(CONVERSATION)])
    ((key, value),) = changes(None, CONTEXT).changelog
    assert replay_entry(key, value, newer) == {}
    assert replay_entry(key, None, newer) == {}
    assert replay_entry(key, None, known(None)) == {}


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"c",
        b"c" + CONVERSATION,
        b"c" + CONVERSATION + ORDER + b"\0\0",
        b"f" + CONVERSATION + ORDER + bytes(7),
        b"f" + CONVERSATION + ORDER + bytes(9),
        b"q" + bytes(8) + CONVERSATION,
        b"x" + CONVERSATION + ORDER + b"\0",
    ],
)
def test_a_key_of_another_release_is_not_taken(key: bytes) -> None:
    with pytest.raises(UndecodableError, match="is not known"):
        replay_entry(key, b"", known(None))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"c" + CONVERSATION + ORDER + b"\1", context_codec.encode(CONTEXT)),
        (b"c" + CONVERSATION + bytes(8) + b"\0", context_codec.encode(CONTEXT)),
        (b"c" + CHATBOT + ORDER + b"\0", context_codec.encode(CONTEXT)),
        (b"c" + CONVERSATION + ORDER + b"\0", b""),
        (b"c" + CONVERSATION + ORDER + b"\0", b"\xff of another release"),
        (b"c" + CONVERSATION + ORDER + b"\0", context_codec.encode(CONTEXT)[:-1]),
    ],
)
def test_a_context_under_another_key_or_in_another_format_is_not_taken(
    key: bytes, value: bytes
) -> None:
    with pytest.raises(UndecodableError):
        replay_entry(key, value, known(None))


def test_what_was_found_is_taken_as_it_is() -> None:
    key = found_key(CONVERSATION, 258, "llm", "1", whole=True)
    assert replay_entry(key, b"\xff", known(None)) == {key: b"\xff"}
    assert replay_entry(key, None, known(None)) == {key: None}


def test_questions_are_by_role_and_by_what_is_switched_on() -> None:
    new = [message(1), message(2, role="assistant"), message(3, role="system")]
    before = take_in(None, ITEM, new, 0, 0, QUIET).before
    off = ChatbotSettings(analysis_off=("intent", "topics", "resolution"), flags=("secret",))
    questions = list(of_messages(ITEM, new, before, off, SOURCE))
    assert [each.subject.kinds for each in questions] == [{"sentiment", "flags"}, {"behaviour"}]
    assert [each.source.index for each in questions] == [4, 5]
    assert [each.position for each in questions] == [1, 2]
    assert questions[1].subject.before[0].id == "m1"
    assert questions[0].subject.vocabulary.flags == ("secret",)
    assert "question" in questions[0].subject.vocabulary.intents
    whole = replace(ITEM, said=CONTEXT.said)
    assert list(of_conversation(whole, off, SOURCE)) == []
    assert list(of_conversation(ITEM, ChatbotSettings(), SOURCE)) == []
    (question,) = of_conversation(whole, ChatbotSettings(), SOURCE)
    assert (question.subject.message, question.position) == (None, 258)
    assert question.source == SOURCE


def test_with_all_switched_off_there_is_no_question() -> None:
    off = ChatbotSettings(analysis=False)
    assert list(of_messages(ITEM, [message(1)], [()], off, SOURCE)) == []
    assert list(of_conversation(replace(ITEM, said=CONTEXT.said), off, SOURCE)) == []
