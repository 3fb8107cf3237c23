"""An import cuts conversations into captures that the gateway takes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from openbat.importer import cut
from schemas.capture import MAX_MESSAGES

message = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"])}) | st.none()
messages = st.builds(
    list.__mul__, st.lists(message, min_size=1, max_size=8), st.sampled_from([1, 2, 20, 51, 101])
)


@given(messages, st.booleans(), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
def test_captures_together_are_the_conversation_and_none_is_over_100_messages(
    sent: list[Any], turn_by_turn: bool, others: dict[str, int]
) -> None:
    captures = list(cut({**others, "messages": sent}, turn_by_turn))
    assert [message for capture in captures for message in capture["messages"]] == sent
    for capture in captures:
        assert 1 <= len(capture["messages"]) <= MAX_MESSAGES
        assert {**capture, "messages": None} == {**others, "messages": None}


@given(messages)
def test_turn_by_turn_a_users_message_only_ever_begins_a_capture(sent: list[Any]) -> None:
    for capture in cut({"messages": sent}, turn_by_turn=True):
        assert {"role": "user"} not in capture["messages"][1:]


@given(messages)
def test_without_turns_captures_are_as_full_as_they_can_be(sent: list[Any]) -> None:
    *full, last = cut({"messages": sent}, turn_by_turn=False)
    assert all(len(capture["messages"]) == MAX_MESSAGES for capture in full)
    assert last["messages"]
