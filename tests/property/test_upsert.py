"""Fields: merged one by one, within 64 KiB, and nothing left out silently."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import sizes
from schemas.records import Captured, Fields, encode
from streams.upsert import merge, upsert
from tests.property.strategies import json_values

names = st.sampled_from(["id", "plan", "a", "b"])
groups = st.sampled_from(["user", "organization", "session", "custom"])
small = st.dictionaries(groups, st.dictionaries(names, json_values, max_size=3), max_size=3)
sizes_of_values = st.sampled_from([0, 1, 100, 20_000, 32_000, 60_000, sizes.FIELDS])
large = st.dictionaries(
    groups,
    st.dictionaries(names, st.builds("x".__mul__, sizes_of_values), max_size=3),
    max_size=3,
)


def flat(fields: Fields) -> dict[str, Any]:
    return {
        f"{group}.{name}": value
        for group, values in fields.items()
        for name, value in values.items()
    }


def stored_by(captures: list[Fields]) -> Fields:
    """Return what captures, one after the other, leave stored."""
    stored: Fields = {}
    for sent in captures:
        stored, _ = merge(stored, sent)
    return stored


@given(small, small)
def test_a_field_sent_again_changes_and_every_other_keeps_its_value(
    stored: Fields, sent: Fields
) -> None:
    merged, left_out = merge(stored, sent)
    assert flat(merged) == flat(stored) | flat(sent)
    assert not left_out


@given(small, small)
def test_merging_touches_neither_what_was_stored_nor_what_was_sent(
    stored: Fields, sent: Fields
) -> None:
    before = encode(stored), encode(sent)
    merge(stored, sent)
    assert (encode(stored), encode(sent)) == before


@given(st.lists(large, max_size=3), large)
def test_a_field_is_stored_as_sent_or_named_as_left_out_and_unchanged(
    captures: list[Fields], sent: Fields
) -> None:
    stored = stored_by(captures)
    merged, left_out = merge(stored, sent)
    assert len(left_out) == len(set(left_out))
    assert set(left_out) <= flat(sent).keys()
    taken = {name: value for name, value in flat(sent).items() if name not in left_out}
    assert flat(merged) == flat(stored) | taken


@given(large, large)
def test_nothing_is_left_out_that_would_have_fitted(stored: Fields, sent: Fields) -> None:
    stored = stored_by([stored])
    _, left_out = merge(stored, sent)
    whole = {group: {**stored.get(group, {}), **sent.get(group, {})} for group in stored | sent}
    assert bool(left_out) == (len(encode(whole)) > sizes.FIELDS)


OVERHEAD = len(encode({"user": {"a": "x" * 60_000}})) - 60_000
FULL: list[Fields] = [{"user": {"a": "x" * (sizes.FIELDS - OVERHEAD)}}]


@given(st.lists(large, max_size=5))
@example([*FULL, {"session": {"id": "x"}}])
def test_the_fields_of_a_conversation_never_take_more_than_64_kib(captures: list[Fields]) -> None:
    assert len(encode(stored_by(captures))) <= sizes.FIELDS


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (1, 1.0), ([1], [True])])
def test_a_value_of_another_type_is_a_change_though_it_compares_equal(
    before: Any, after: Any
) -> None:
    def captured(value: Any) -> Captured:
        fields = {"custom": {"a": value}}
        return Captured(bytes(16), bytes(16), "c", 1, True, [], fields)

    state, _ = upsert(None, captured(before), 10, [])
    assert upsert(state, captured(before), 20, [])[0] is state
    changed, _ = upsert(state, captured(after), 20, [])
    assert encode(changed.fields) == encode({"custom": {"a": after}})
    assert changed.revision > state.revision
