"""The fields of a request, rule by rule."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.contract.client import (
    ABSENT,
    FULL,
    Bot,
    assert_error,
    assert_ok,
    body,
    fields,
    message,
    table,
    unique,
    with_value,
)

NOT_TEXT = [0, 1.5, True, [], {}, ["x"]]
NOT_NUMBERS = ["", "12", True, [], {}]
NOT_OBJECTS = [0, "", "x", False, [], [{}]]
TEXTS = [
    *(f"$.user.{name}" for name in ("id", "name", "email", "plan", "industry")),
    *(f"$.organization.{name}" for name in ("id", "name", "plan", "industry")),
    *(f"$.session.{name}" for name in ("id", "pageUrl", "referrer", "device", "country")),
    "$.userId",
]
NUMBERS = ["$.user.mrr", "$.organization.mrr"]
OBJECTS = ["$.user", "$.organization", "$.session", "$.custom", "$.metadata"]
OPTIONAL = [
    *TEXTS, *NUMBERS, *OBJECTS, "$.user.createdAt", "$.messages[1].id", "$.messages[1].sentAt",
]  # fmt: skip
REFUSED: dict[str, list[Any]] = {
    "$.conversationId": [*NOT_TEXT, None, "", "x" * 256, "é" * 256, "😀" * 256],
    "$.messages": [0, "x", True, {}, None, [], [message()] * 101],
    "$.messages[1]": [0, "x", True, None, [], [message()]],
    "$.messages[1].role": [*NOT_TEXT, None, "", "User", "USER", "tool", " user", "user\0"],
    "$.messages[1].content": [*NOT_TEXT, None],
    "$.messages[1].id": [*NOT_TEXT, "", "x" * 256, "漢" * 256],
    "$.messages[1].sentAt": [0, 1767323045, 1.5, True, [], {}],
    "$.user.createdAt": [0, 1767323045, True, [], {}, "", "yesterday", "2024-13-01T00:00:00Z"],
    **dict.fromkeys(TEXTS, NOT_TEXT),
    **dict.fromkeys(NUMBERS, NOT_NUMBERS),
    **dict.fromkeys(OBJECTS, NOT_OBJECTS),
}
ACCEPTED: dict[str, list[Any]] = {
    "$.conversationId": ["x", " ", "\n", "é" * 255, "漢" * 255, "😀" * 255, "x" * 255, "a/b?c'd"],
    "$.messages": [[message()], [message()] * 100, [message(unknown={"a": [1]})]],
    "$.messages[1].role": ["user", "assistant", "system"],
    "$.messages[1].content": ["", " ", "😀" * 5000],
    "$.messages[1].id": ["x", " ", "é" * 255, "😀" * 255],
    "$.user.createdAt": [
        "2024-05-06T07:08:09Z",
        "2024-05-06T07:08:09",
        "2024-05-06T07:08:09+05:30",
    ],
    "$.user.mrr": [0, -1, 12.5, 1e3, 10**30],
    "$.organization.mrr": [0, -1, 12.5, 1e3, 10**30],
    "$.session.country": ["", "Norway"],
    **{path: [{}] for path in OBJECTS},
}


def cases(values: dict[str, list[Any]]) -> pytest.MarkDecorator:
    """Run a test for each path and value."""
    found = [(path, value) for path, several in values.items() for value in several]
    ids = [f"{path}={_short(value)}" for path, value in found]
    return pytest.mark.parametrize(("path", "value"), found, ids=ids)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:12]}..{len(value)}"


@cases(REFUSED)
def test_a_value_outside_its_rule_is_refused(bot: Bot, path: str, value: Any) -> None:
    assert_error(bot.post(with_value(path, value)), 400, path)


@cases(ACCEPTED)
def test_a_value_within_its_rule_is_accepted(bot: Bot, path: str, value: Any) -> None:
    capture = with_value(path, value)
    assert_ok(bot.post(capture), stored=len(capture["messages"]), warnings=[])


@pytest.mark.parametrize(
    "path",
    ["$.conversationId", "$.messages", "$.messages[1].role", "$.messages[1].content"],
)
def test_a_required_field_must_be_there(bot: Bot, path: str) -> None:
    """The path may be the field's or that of the object that lacks it; the answer names both."""
    parent, _, name = path.rpartition(".")
    error = assert_error(bot.post(with_value(path, ABSENT)), 400)
    assert error.get("path") in {path, parent}
    assert name in f"{error['path']} {error['message']}"


@pytest.mark.parametrize("path", OPTIONAL)
@pytest.mark.parametrize("value", [ABSENT, None], ids=["absent", "null"])
def test_an_optional_field_may_be_absent_or_null(bot: Bot, path: str, value: Any) -> None:
    assert_ok(bot.post(with_value(path, value)), stored=3, warnings=[])


@table(
    {
        "role before content": ("$.messages[1].role", ["$.messages[3].content"]),
        "range before type": ("$.messages[0].sentAt", ["$.messages[1].role"]),
        "length before type": ("$.messages[2].id", ["$.messages[3].role"]),
        "messages before user": ("$.messages[3].content", ["$.user.email", "$.session.id"]),
        "conversationId before all": ("$.conversationId", ["$.messages[0].role", "$.user"]),
        "user before its successors": ("$.user.createdAt", ["$.organization.mrr", "$.metadata"]),
    }
)
def test_the_path_is_that_of_the_first_fault(bot: Bot, case: tuple[str, list[str]]) -> None:
    first, others = case
    capture = {**FULL, "messages": [message(id="a"), message(), message(), message()]}
    faults = {
        "$.conversationId": "", "$.messages[0].sentAt": "2300-01-01T00:00:00Z",
        "$.messages[2].id": "", "$.user.createdAt": "1899-01-01T00:00:00Z",
    }  # fmt: skip
    for path in [first, *others]:
        steps = path.removeprefix("$.").replace("[", ".").replace("]", "").split(".")
        inner: Any = capture
        for step in steps[:-1]:
            key: Any = int(step) if step.isdigit() else step
            inner[key] = dict(inner[key]) if isinstance(inner[key], dict) else list(inner[key])
            inner = inner[key]
        inner[steps[-1]] = faults.get(path, 5)
    assert_error(bot.post(capture), 400, first)


SENT_AT = {
    "2026-01-02T03:04:05Z": "2026-01-02 03:04:05.000000",
    "2026-01-02t03:04:05z": "2026-01-02 03:04:05.000000",
    "2026-01-02T03:04:05": "2026-01-02 03:04:05.000000",
    "2026-01-02T03:04:05.25": "2026-01-02 03:04:05.250000",
    "2026-01-02T03:04:05+02:00": "2026-01-02 01:04:05.000000",
    "2026-01-02T03:04:05-11:30": "2026-01-02 14:34:05.000000",
    "2026-01-02T03:04:05-00:00": "2026-01-02 03:04:05.000000",
    "2026-01-02T03:04:05.1Z": "2026-01-02 03:04:05.100000",
    "2026-01-02T03:04:05.123456Z": "2026-01-02 03:04:05.123456",
    "2026-01-02T03:04:05.123456123Z": "2026-01-02 03:04:05.123456",
    "2024-02-29T23:59:59.999999+00:00": "2024-02-29 23:59:59.999999",
    "1900-01-01T00:00:00Z": "1900-01-01 00:00:00.000000",
    "1969-12-31T23:59:59.5Z": "1969-12-31 23:59:59.500000",
    "2299-12-31T23:59:59Z": "2299-12-31 23:59:59.000000",
}
NOT_SENT_AT = [
    "", " ", "now", "2026", "2026-01-02", "2026-01", "03:04:05Z", "1767323045",
    "2026-01-02T", "2026-01-02T03Z", "2026-01-02T03:04Z", "20260102T030405Z",
    "2026-W01-5T03:04:05Z", "2026-002T03:04:05Z", "2026-1-2T03:04:05Z", "26-01-02T03:04:05Z",
    "2026-00-02T03:04:05Z", "2026-13-02T03:04:05Z", "2026-02-29T03:04:05Z",
    "2026-01-02T25:04:05Z", "2026-01-02T03:60:05Z", "2026-01-02T03:04:61Z",
    "2026-01-02T24:00:00Z", "2026-01-02T03:04:05,5Z", "2026-01-02_03:04:05Z",
    "2026-01-02T03:04:05+0200", "2026-01-02T03:04:05+02", "2026-01-02T03:04:05+2:00",
    "2026-01-02T03:04:05+25:00", "2026-01-02T03:04:05+02:60",
    "2026-01-02T03:04:05 Europe/Oslo", "2026-01-02T03:04:05Z ", " 2026-01-02T03:04:05Z",
    "2026-01-02T03:04:05Z\0", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05ZZ",
    "\uff12\uff10\uff12\uff16-01-02T03:04:05Z", "-2026-01-02T03:04:05Z", "+12026-01-02T03:04:05Z",
    "1899-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
    "2300-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00",
    "0001-01-01T00:00:00+01:00",
]  # fmt: skip
EDGES = {
    "1900-01-01T00:00:00+01:00": "1899-12-31 23:00:00.000000",
    "1899-12-31T23:30:00-01:00": "1900-01-01 00:30:00.000000",
    "2299-12-31T23:59:59-01:00": "2300-01-01 00:59:59.000000",
    "2300-01-01T00:00:00+01:00": "2299-12-31 23:00:00.000000",
}


@pytest.fixture(scope="module")
def sent(bot: Bot) -> dict[str, httpx.Response]:
    """Post each time, as a message of its own conversation."""
    times = [*SENT_AT, *EDGES]
    return {time: bot.post(body(message(sentAt=time))) for time in times}


@pytest.mark.parametrize("time", SENT_AT)
def test_sent_at_is_stored_as_utc(bot: Bot, sent: dict[str, httpx.Response], time: str) -> None:
    assert_ok(sent[time], stored=1, warnings=[])
    assert bot.messages(sent[time], 1)[0]["sent_at"] == SENT_AT[time]


@pytest.mark.parametrize("time", NOT_SENT_AT, ids=[json.dumps(time) for time in NOT_SENT_AT])
def test_what_is_no_time_of_1900_to_2299_is_refused(bot: Bot, time: str) -> None:
    assert_error(bot.post(body(message(), message(sentAt=time))), 400, "$.messages[1].sentAt")


@pytest.mark.parametrize("time", EDGES)
def test_an_offset_at_the_edge_is_refused_or_exact(
    bot: Bot, sent: dict[str, httpx.Response], time: str
) -> None:
    if sent[time].status_code == 400:
        assert_error(sent[time], 400, "$.messages[0].sentAt")
        return
    assert_ok(sent[time], stored=1)
    assert bot.messages(sent[time], 1)[0]["sent_at"] == EDGES[time]


@pytest.mark.parametrize("value", [ABSENT, None], ids=["absent", "null"])
def test_sent_at_is_by_default_when_the_gateway_received_it(bot: Bot, value: Any) -> None:
    before = datetime.now(UTC)
    item = message() if value is ABSENT else message(sentAt=value)
    answer = bot.post(body(item))
    after = datetime.now(UTC)
    row = bot.messages(answer, 1)[0]
    assert row["sent_at"] == row["received_at"]
    found = datetime.fromisoformat(row["sent_at"]).replace(tzinfo=UTC)
    second = timedelta(seconds=1)
    assert before - second <= found <= after + second


def test_every_field_is_stored(bot: Bot) -> None:
    capture = {**FULL, "conversationId": unique("full-é😀")}
    row = bot.conversation(bot.post(capture), messages=3)
    expected = {
        "external_conversation_id": capture["conversationId"],
        "user_id": "u1",
        "user_name": "Ann",
        "user_email": "ann@example.com",
        "user_plan": "pro",
        "user_industry": "retail",
        "user_created_at": "2024-05-06 07:08:09.000000",
        "user_mrr": 12.5,
        "organization_id": "o1",
        "organization_name": "Acme",
        "organization_plan": "team",
        "organization_industry": "steel",
        "organization_mrr": 250,
        "session_id": "s1",
        "session_page_url": "https://example.com/a?b=c",
        "session_referrer": "https://example.org/",
        "session_device": "phone",
        "session_country": "NO",
    }
    assert {name: row[name] for name in expected} == expected
    columns = ("user_other", "organization_other", "session_other", "custom")
    assert [fields(row[name]) for name in columns] == [{}] * 4


def test_messages_keep_their_order_and_what_they_say(bot: Bot) -> None:
    roles = ["user", "assistant", "system"]
    sent = [
        {"id": f"m{number}", "role": roles[number % 3], "content": f"{number} 漢"}
        for number in range(100)
    ]
    rows = bot.messages(bot.post(body(*sent)), 100)
    found = [
        {"id": row["message_id"], "role": row["role"], "content": row["content"]} for row in rows
    ]
    assert [item["role"] for item in found] == [item["role"] for item in sent]
    assert [item["content"] for item in found] == [item["content"] for item in sent]


def test_unknown_top_level_members_are_ignored(bot: Bot) -> None:
    odd = {"": 0, "ok": False, "messagesStored": 7, "x": {"a": [1, None, {"b": []}]}, "user ": 5}
    assert_ok(bot.post(body(**odd)), stored=1, warnings=[])


UNKNOWN: dict[str, Any] = {
    "text": "é😀\0",
    "whole": 7,
    "real": 1.5,
    "yes": True,
    "list": [1, "a", None, {"b": []}],
    "object": {"a": {"b": {"c": 1}}},
    "ID": "not id",
    "": "no name",
    "user_id": "not id",
    "page_url": "x",
}


@pytest.mark.parametrize("part", ["user", "organization", "session"])
def test_unknown_members_are_kept_with_the_conversation(bot: Bot, part: str) -> None:
    answer = bot.post(body(**{part: {**UNKNOWN, "id": "known"}}))
    assert_ok(answer, warnings=[])
    row = bot.conversation(answer)
    assert row[f"{part}_id"] == "known"
    assert fields(row[f"{part}_other"]) == UNKNOWN


USER_IDS: dict[str, tuple[dict[str, Any], str]] = {
    "alone": ({"userId": "old"}, "old"),
    "beside a user": ({"userId": "old", "user": {"name": "Ann"}}, "old"),
    "beside a user that is null": ({"userId": "old", "user": None}, "old"),
    "beside user.id that is null": ({"userId": "old", "user": {"id": None}}, "old"),
    "under user.id": ({"userId": "old", "user": {"id": "new"}}, "new"),
    "under user.id that is empty": ({"userId": "old", "user": {"id": ""}}, ""),
}


@pytest.fixture(scope="module")
def with_user_id(bot: Bot) -> dict[str, httpx.Response]:
    return {name: bot.post(body(**members)) for name, (members, _) in USER_IDS.items()}


@pytest.mark.parametrize("name", USER_IDS)
def test_user_id_stands_in_for_user_id(
    bot: Bot, with_user_id: dict[str, httpx.Response], name: str
) -> None:
    assert_ok(with_user_id[name], warnings=[])
    assert bot.conversation(with_user_id[name])["user_id"] == USER_IDS[name][1]


@table(
    {
        "none": ({}, False),
        "user.id and custom": ({"user": {"id": "a"}, "custom": {}}, False),
        "null is absent": ({"userId": None, "metadata": None}, False),
        "unknown member": ({"user": {"userId": "a", "metadata": {}}}, False),
        "userId": ({"userId": "a"}, True),
        "userId under user.id": ({"userId": "a", "user": {"id": "b"}}, True),
        "metadata": ({"metadata": {"a": "b"}}, True),
        "empty metadata": ({"metadata": {}}, True),
        "both": ({"userId": "a", "metadata": {"a": 1}}, True),
    }
)
def test_a_deprecated_field_is_answered_with_a_header(
    bot: Bot, case: tuple[dict[str, Any], bool]
) -> None:
    members, deprecated = case
    answer = bot.post(body(**members))
    found = assert_ok(answer)
    assert ("deprecation" in answer.headers) == deprecated
    if deprecated:
        value = answer.headers["deprecation"]
        assert value.startswith("@")
        assert int(value[1:]) < datetime.now(UTC).timestamp()
    assert not any("deprecat" in warning.lower() for warning in found["warnings"])
