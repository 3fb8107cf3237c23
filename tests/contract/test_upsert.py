"""A known conversation: messages are appended, fields are updated one by one."""

from typing import Any

import httpx
import pytest

from tests.contract.client import FULL, Bot, assert_ok, body, fields, message, unique

COLUMNS: dict[str, tuple[str, str, Any, Any]] = {
    "user_id": ("user", "id", "u2", "u2"),
    "user_name": ("user", "name", "Bo", "Bo"),
    "user_email": ("user", "email", "bo@example.com", "bo@example.com"),
    "user_plan": ("user", "plan", "", ""),
    "user_industry": ("user", "industry", "law", "law"),
    "user_created_at": ("user", "createdAt", "2025-01-01T00:00:00Z", "2025-01-01 00:00:00.000000"),
    "user_mrr": ("user", "mrr", 0, 0),
    "organization_id": ("organization", "id", "o2", "o2"),
    "organization_name": ("organization", "name", "Bcme", "Bcme"),
    "organization_plan": ("organization", "plan", "free", "free"),
    "organization_industry": ("organization", "industry", "", ""),
    "organization_mrr": ("organization", "mrr", -1.5, -1.5),
    "session_id": ("session", "id", "s2", "s2"),
    "session_page_url": ("session", "pageUrl", "/b", "/b"),
    "session_referrer": ("session", "referrer", "/c", "/c"),
    "session_device": ("session", "device", "tablet", "tablet"),
    "session_country": ("session", "country", "SE", "SE"),
}
"""Each column: the field that it holds, another value for it, and that value as a row has it."""

OTHERS = ["user_other", "organization_other", "session_other", "custom"]
FIRST = {
    "user": {**FULL["user"], "a": 1, "b": {"c": [1]}},
    "organization": {**FULL["organization"], "a": 1, "b": "2"},
    "session": {**FULL["session"], "a": 1, "b": None},
    "custom": {"a": 1, "b": "2"},
}


def known(row: dict[str, Any]) -> dict[str, Any]:
    """Return a conversation's fields."""
    return {column: row[column] for column in COLUMNS} | {
        column: {name: value for name, value in fields(row[column]).items() if value is not None}
        for column in OTHERS
    }


def post_all(bot: Bot, *captures: dict[str, Any]) -> httpx.Response:
    """Post captures of one conversation, a new message in each; return the last answer."""
    conversation = unique()
    for number, members in enumerate(captures):
        answer = bot.post(body(message(id=f"m{number}"), conversationId=conversation, **members))
        assert_ok(answer, stored=1)
    return answer


@pytest.fixture(scope="module")
def first(bot: Bot) -> dict[str, Any]:
    """Return the fields of a conversation that was sent once."""
    return known(bot.conversation(post_all(bot, FIRST)))


@pytest.fixture(scope="module")
def changed(bot: Bot) -> dict[str, httpx.Response]:
    """Send each field anew, alone, and then null."""
    return {
        column: post_all(bot, FIRST, {part: {name: value}}, {part: {name: None}})
        for column, (part, name, value, _) in COLUMNS.items()
    }


@pytest.mark.parametrize("column", COLUMNS)
def test_a_field_sent_again_is_all_that_changes(
    bot: Bot, first: dict[str, Any], changed: dict[str, httpx.Response], column: str
) -> None:
    row = known(bot.conversation(changed[column], 3))
    assert row == {**first, column: COLUMNS[column][3]}


UPDATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "null parts": (dict.fromkeys([*FIRST, "userId", "metadata"]), {}),
    "empty parts": ({part: {} for part in FIRST}, {}),
    "null fields": (
        {part: dict.fromkeys(FULL[part]) for part in ("user", "organization", "session")},
        {},
    ),
    "another unknown member": (
        {"user": {"c": 3}, "organization": {"c": 3}, "session": {"c": 3}},
        {
            "user_other": {"a": 1, "b": {"c": [1]}, "c": 3},
            "organization_other": {"a": 1, "b": "2", "c": 3},
            "session_other": {"a": 1, "c": 3},
        },
    ),
    "an unknown member again": (
        {"user": {"a": "x", "b": {"d": 1}}},
        {"user_other": {"a": "x", "b": {"d": 1}}},
    ),
    "a custom field again": ({"custom": {"a": True}}, {"custom": {"a": True, "b": "2"}}),
    "another custom field": ({"custom": {"c": 3}}, {"custom": {"a": 1, "b": "2", "c": 3}}),
    "a custom field null": ({"custom": {"a": None, "c": []}}, {}),
    "metadata": ({"metadata": {"a": 5}}, {"custom": {"a": 5, "b": "2"}}),
    "userId": ({"userId": "u9"}, {"user_id": "u9"}),
}
"""What a second capture has, and what is other then."""


@pytest.fixture(scope="module")
def updated(bot: Bot) -> dict[str, httpx.Response]:
    return {name: post_all(bot, FIRST, members) for name, (members, _) in UPDATES.items()}


@pytest.mark.parametrize("name", UPDATES)
def test_a_later_capture_updates(
    bot: Bot, first: dict[str, Any], updated: dict[str, httpx.Response], name: str
) -> None:
    assert known(bot.conversation(updated[name], 2)) == {**first, **UPDATES[name][1]}


def test_a_field_may_come_later(bot: Bot, first: dict[str, Any]) -> None:
    """Nothing is known at first; every part comes in a capture of its own."""
    parts = [{part: members} for part, members in FIRST.items()]
    assert known(bot.conversation(post_all(bot, {}, *parts), 5)) == first


def test_a_repeat_that_stores_nothing_updates_fields_still(bot: Bot) -> None:
    capture = body(message(id="a"), user={"name": "Ann", "plan": "free"})
    assert bot.count(capture) == 1
    assert bot.count({**capture, "user": {"plan": "pro"}}) == 0
    answer = bot.post({**capture, "user": None, "messages": [message(id="b")]})
    row = bot.conversation(answer, 2)
    assert (row["user_name"], row["user_plan"]) == ("Ann", "pro")


def test_the_counts_and_times_of_a_conversation(bot: Bot) -> None:
    conversation = unique()
    times = [
        ["2026-01-02T10:00:00Z", "2026-01-02T10:00:05.5Z"],
        ["2026-01-02T11:00:00+02:00"],
        ["2026-01-02T12:00:00Z", "2026-01-02T11:00:00Z"],
    ]
    expected = [
        (2, "2026-01-02 10:00:00.000000", "2026-01-02 10:00:05.500000"),
        (3, "2026-01-02 09:00:00.000000", "2026-01-02 10:00:05.500000"),
        (5, "2026-01-02 09:00:00.000000", "2026-01-02 12:00:00.000000"),
    ]
    for number, (sent, found) in enumerate(zip(times, expected, strict=True)):
        items = [message(id=f"{number}-{time}", sentAt=time) for time in sent]
        answer = bot.post(body(*items, conversationId=conversation))
        row = bot.conversation(answer, found[0])
        assert (row["message_count"], row["first_message_at"], row["last_message_at"]) == found

    old = message(id="0-2026-01-02T10:00:00Z", sentAt="2020-01-01T00:00:00Z")
    capture = body(old, message(id="new", sentAt="2026-01-02T11:30:00Z"))
    answer = bot.post({**capture, "conversationId": conversation})
    row = bot.conversation(answer, 6)
    assert (row["first_message_at"], row["last_message_at"]) == expected[2][1:]
    assert row["external_conversation_id"] == conversation


def test_messages_are_appended_in_the_order_of_arrival(bot: Bot) -> None:
    conversation = unique()
    for start in (0, 3, 6):
        items = [message(id=f"m{n}", content=str(n)) for n in range(start, start + 3)]
        answer = bot.post(body(*items, conversationId=conversation))
    assert [row["content"] for row in bot.messages(answer, 9)] == list("012345678")
