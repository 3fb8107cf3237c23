"""Whatever a client sends is refused with a 400, or taken, and can be published then."""

import copy
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from gateway.decode import captured_of, conversation_id_of, decode_capture, distinct_messages
from gateway.errors import RefusedError
from schemas.chatbots import Chatbot
from schemas.records import Captured, decode_captured, encode

CHATBOT = Chatbot(
    id="0f0e0d0c-0b0a-4908-8706-050403020100",
    name="tried",
    key_sha256=b"",
    key_prefix="",
    created_at=datetime(2025, 1, 1, tzinfo=UTC),
    schema={"a": "string", "b": "number", "c": "boolean"},
)
NOW = 1_700_000_000_000_000

VALID: dict[str, Any] = {
    "conversationId": "conversation",
    "messages": [
        {"role": "user", "content": "hi", "id": "m1", "sentAt": "2025-01-01T00:00:00Z"},
        {"role": "assistant", "content": ""},
    ],
    "user": {"id": "u", "createdAt": "2020-02-29T12:00:00.5+02:00", "mrr": 1.5, "x": [1, {}]},
    "organization": {"name": "o", "mrr": 1},
    "session": {"pageUrl": "https://example.org", "y": None},
    "custom": {"a": "text", "b": 1, "c": True, "d": 2.5},
    "userId": "old",
    "metadata": {"a": "older", "e": False},
}

times = st.sampled_from(
    [
        "2025-01-01",
        "2025-01-01T00:00:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "1899-12-31T23:59:59.999999Z",
        "2300-01-01T00:00:00Z",
        "2016-12-31T23:59:60Z",
    ]
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**300, 10**308, 10**309, -(10**400)])
    | st.floats()
    | st.text(max_size=10)
    | times,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(sorted(VALID)), inner, max_size=4)
    ),
    max_leaves=8,
)


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Return every container and key in the value."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    found: list[tuple[Any, Any]] = []
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places_in(value[key])
    return found


@st.composite
def mutated(draw: DrawFn) -> Any:
    """Return a valid body after a few changes anywhere in it."""
    body = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(0, 3))):
        places = places_in(body)
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        if draw(st.booleans()):
            container[key] = draw(json_values)
        elif isinstance(container, dict) and draw(st.booleans()):
            container[draw(st.text(max_size=5))] = draw(json_values)
        else:
            del container[key]
    return body


def taken(body: bytes, idempotency_key: str | None = None) -> Captured | None:
    """Return what would be published of a body, None where it is refused as it should be."""
    try:
        captured, warnings = captured_of(decode_capture(body), CHATBOT, NOW, idempotency_key)
    except RefusedError as error:
        refused = error
    else:
        assert all(isinstance(warning, str) for warning in warnings)
        assert decode_captured(encode(captured)) == captured
        assert 1 <= distinct_messages(captured) <= len(captured.messages) <= 100
        return captured
    assert refused.status == 400
    assert refused.path is not None
    assert refused.path.startswith("$")
    assert json.loads(bytes(refused.response().body))["error"]["message"]
    return None


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def body_with(member: str, value: str) -> bytes:
    """Return a body with one member more, written as it is."""
    return json.dumps(VALID).encode()[:-1] + f', "{member}": {value}}}'.encode()


@given(json_values, st.booleans())
def test_any_json_is_taken_or_refused_with_a_400(value: Any, ascii_only: bool) -> None:
    taken(json.dumps(value, ensure_ascii=ascii_only).encode())


@given(mutated(), st.booleans(), st.none() | st.text(max_size=5))
@example(VALID, True, None)
@example(VALID | {"user": {"mrr": 10**400}}, True, None)
@example(VALID | {"user": {"anything": 10**309}}, True, None)
@example(VALID | {"messages": [{"role": "user", "content": "x"}] * 101}, True, None)
def test_a_body_with_faults_is_taken_or_refused_with_a_400(
    value: Any, ascii_only: bool, idempotency_key: str | None
) -> None:
    taken(json.dumps(value, ensure_ascii=ascii_only).encode(), idempotency_key)


@given(st.binary(max_size=40), st.integers(0, 600), st.integers(0, 3))
def test_damaged_bytes_are_taken_or_refused_with_a_400(junk: bytes, at: int, cut: int) -> None:
    body = json.dumps(VALID).encode()
    taken(junk)
    taken(body[:at] + junk + body[at + cut :])


@given(st.text(max_size=5), st.sampled_from(["\\ud800", "\\udc00", "\\ud800\\u0041", "\\u0000"]))
def test_escapes_that_are_no_characters_are_refused_or_taken(text: str, escape: str) -> None:
    taken(body_with("user", f'{{"{escape}": "{escape}"}}'))
    taken(body_with("conversationId", f'"{escape}"'))
    taken(body_with("metadata", json.dumps({text: text})))


@pytest.mark.parametrize("depth", [30, 32, 33, 500, 5_000, 200_000])
@pytest.mark.parametrize("member", ["user", "session", "custom", "messages", "ignored"])
def test_nesting_is_taken_or_refused_with_a_400(member: str, depth: int) -> None:
    taken(body_with(member, f'{{"deep": {nested(depth)}}}'))
    taken(body_with(member, nested(depth)))
    taken(nested(depth).encode())


@pytest.mark.parametrize("digits", [19, 20, 308, 309, 4_300, 4_301, 100_000])
@pytest.mark.parametrize("member", ["user", "custom"])
def test_a_whole_number_of_any_length_is_taken_or_refused_with_a_400(
    member: str, digits: int
) -> None:
    for sign in ("", "-"):
        taken(body_with(member, f'{{"mrr": {sign}{"9" * digits}, "other": {sign}{"9" * digits}}}'))


def test_a_valid_body_is_taken_whole() -> None:
    captured = taken(json.dumps(VALID).encode())
    assert captured is not None
    assert [message.content for message in captured.messages] == ["hi", ""]
    assert captured.fields == {
        "user": VALID["user"],
        "organization": VALID["organization"],
        "session": {"pageUrl": "https://example.org"},
        "custom": {"a": "text", "e": False, "b": 1, "c": True, "d": 2.5},
    }


@given(json_values.filter(lambda value: value is None or isinstance(value, list | dict)))
@example([])
@example({"a": {"b": 1}})
def test_a_custom_value_of_another_kind_is_left_out(value: Any) -> None:
    body = VALID | {"custom": {"kept": 1, "a": value}, "metadata": {}}
    captured = taken(json.dumps(body).encode())
    if captured is None:
        assert "NaN" in json.dumps(value) or "Infinity" in json.dumps(value)
    else:
        assert captured.fields["custom"] == {"kept": 1}


@given(st.text(min_size=1, max_size=255), st.text(min_size=1, max_size=20))
def test_an_idempotency_key_gives_the_same_ids_again_and_another_key_gives_others(
    key: str, other: str
) -> None:
    body = json.dumps(VALID).encode()
    first, second, different = taken(body, key), taken(body, key), taken(body, other)
    assert first is not None
    assert first == second
    assert different is not None
    assert (first == different) == (key == other)
    assert all(message.remembered for message in first.messages)


@given(st.uuids(), st.uuids(), st.text(min_size=1), st.text(min_size=1))
def test_conversations_have_one_id_each(
    chatbot: UUID, other_chatbot: UUID, name: str, other_name: str
) -> None:
    one, other = conversation_id_of(chatbot, name), conversation_id_of(other_chatbot, other_name)
    assert (one == other) == ((chatbot, name) == (other_chatbot, other_name))
