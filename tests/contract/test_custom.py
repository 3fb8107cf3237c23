"""Custom fields: the schema's warnings, what is kept, and how much."""

from typing import Any

import httpx
import pytest

from tests.contract.client import EXACT, Bot, assert_ok, body, fields, message, table, unique
from tests.stack import wait_until

SCHEMA = {"plan": "string", "seats": "number", "trial": "boolean"}
KIB_64 = 65536


def unknown(name: str) -> str:
    return f"Custom field '{name}' not in schema"


def wrong(name: str, got: str) -> str:
    return f"Custom field '{name}' expected {SCHEMA[name]}, got {got}"


def no_value(name: str) -> str:
    return f"Custom field '{name}' must be a string, number or boolean"


@pytest.fixture(scope="module")
def bot(bot: Bot) -> Bot:
    """Return the module's chatbot, with a schema."""
    bot.openbat("set-schema", *(f"{name}={kind}" for name, kind in SCHEMA.items()))
    wait_until(
        lambda: assert_ok(bot.post(body(custom={"plan": "a"})))["warnings"] == [], 2, "the schema"
    )
    return bot


Case = tuple[dict[str, Any], dict[str, Any], list[str]]
"""Members of the capture, the custom fields that are kept, the warnings."""


def custom(values: dict[str, Any], *warnings: str, kept: dict[str, Any] | None = None) -> Case:
    return {"custom": values}, values if kept is None else kept, list(warnings)


MANY = [f"f{number}" for number in range(300)]
ODD_NAMES = ["", "a'b", 'a"b', "é😀", "a\0b", "a.b", "Plan", "x" * 300, "user_id"]
CASES: dict[str, Case] = {
    "nothing": custom({}),
    "all of the schema": custom({"plan": "pro", "seats": 3, "trial": False}),
    "empty text": custom({"plan": ""}),
    "a real number": custom({"seats": 1.5}),
    "a negative number": custom({"seats": -3}),
    "unknown": custom({"tier": "gold"}, unknown("tier")),
    "unknown number and boolean": custom({"a": 1, "b": True}, unknown("a"), unknown("b")),
    "number for string": custom({"plan": 1}, wrong("plan", "number")),
    "real number for string": custom({"plan": 1.5}, wrong("plan", "number")),
    "boolean for string": custom({"plan": True}, wrong("plan", "boolean")),
    "string for number": custom({"seats": "3"}, wrong("seats", "string")),
    "boolean for number": custom({"seats": True}, wrong("seats", "boolean")),
    "string for boolean": custom({"trial": "true"}, wrong("trial", "string")),
    "number for boolean": custom({"trial": 0}, wrong("trial", "number")),
    "huge number for string": custom({"plan": 2**70}, wrong("plan", "number")),
    "null": custom({"plan": None, "seats": 2}, no_value("plan"), kept={"seats": 2}),
    "array": custom({"seats": [1]}, no_value("seats"), kept={}),
    "empty array": custom({"seats": []}, no_value("seats"), kept={}),
    "object": custom({"trial": {"a": 1}}, no_value("trial"), kept={}),
    "unknown null": custom({"tier": None}, no_value("tier"), kept={}),
    "unknown array": custom({"tier": [[]]}, no_value("tier"), kept={}),
    "unknown object": custom({"tier": {}, "x": 1}, no_value("tier"), unknown("x"), kept={"x": 1}),
    "one warning each": custom(
        {"plan": 1, "seats": "x", "trial": None, "a": 1, "b": []},
        wrong("plan", "number"), wrong("seats", "string"), no_value("trial"), unknown("a"),
        no_value("b"), kept={"plan": 1, "seats": "x", "a": 1},
    ),
    "300 unknown": custom(dict.fromkeys(MANY, 1), *map(unknown, MANY)),
    **{f"name {name[:9]!a}": custom({name: 1}, unknown(name)) for name in ODD_NAMES},
    "metadata": ({"metadata": {"plan": "a"}}, {"plan": "a"}, []),
    "metadata warns": ({"metadata": {"plan": 1, "a": 1}}, {"plan": 1, "a": 1},
                       [wrong("plan", "number"), unknown("a")]),
    "metadata null": ({"metadata": {"plan": None}}, {}, [no_value("plan")]),
    "metadata under custom": ({"metadata": {"plan": "old", "seats": 1}, "custom": {"plan": "new"}},
                              {"plan": "new", "seats": 1}, []),
    "custom mends metadata": ({"metadata": {"plan": 1}, "custom": {"plan": "new"}},
                              {"plan": "new"}, []),
    "custom over metadata": ({"metadata": {"plan": "old"}, "custom": {"plan": 1}}, {"plan": 1},
                             [wrong("plan", "number")]),
    "both unknown": ({"metadata": {"a": 1}, "custom": {"a": 2}}, {"a": 2}, [unknown("a")]),
    "custom null, metadata": ({"metadata": {"plan": "a"}, "custom": None}, {"plan": "a"}, []),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(bot: Bot) -> dict[str, httpx.Response]:
    return {name: bot.post(body(**members)) for name, (members, _, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_custom_fields(bot: Bot, answers: dict[str, httpx.Response], name: str) -> None:
    _, kept, warnings = CASES[name]
    assert_ok(answers[name], stored=1, warnings=warnings)
    found = fields(bot.conversation(answers[name])["custom"])
    assert found == kept
    assert {field: type(value) is bool for field, value in found.items()} == {
        field: type(value) is bool for field, value in kept.items()
    }


@pytest.mark.parametrize("value", [None, "a", [], {}], ids=repr)
def test_a_field_named_twice_warns_at_most_once(bot: Bot, value: Any) -> None:
    answer = bot.post(body(metadata={"tier": "gold"}, custom={"tier": value}))
    assert len(assert_ok(answer)["warnings"]) == 1


def test_a_new_chatbot_has_an_empty_schema(demo: httpx.Client) -> None:
    answer = demo.post("/api/v1/capture", json=body(custom={"plan": "pro"}), headers=EXACT)
    assert_ok(answer, warnings=[unknown("plan")])


NUMBERS: dict[str, tuple[str, float]] = {
    text: (text, value)
    for text, value in {
        "0": 0, "-1": -1, "1.0": 1.0, "0.1": 0.1, "1e2": 100.0, "1E+2": 100.0, "-0.0": 0.0,
        "1.7976931348623157e308": 1.7976931348623157e308, "5e-324": 5e-324, "1e-999": 0.0,
        "9007199254740993": 2**53 + 1, "9223372036854775807": 2**63 - 1,
        "-9223372036854775808": -(2**63), "18446744073709551616": float(2**64),
        "-9223372036854775809": -float(2**63), "1000000000000000000000000000000": 1e30,
        "-1000000000000000000000000000000": -1e30, "1" + "0" * 300: 1e300,
        "1" + "7" * 308: 1.7777777777777777e308,
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def numbers(bot: Bot) -> dict[str, httpx.Response]:
    """Post each number as a custom field, as mrr, and in an unknown member."""
    return {
        text: bot.post_bytes(
            b'{"conversationId": "%s", "messages": [{"role": "user", "content": ""}],'
            b'"custom": {"seats": %s}, "user": {"mrr": %s, "other": [%s]}}'
            % (unique().encode(), text.encode(), text.encode(), text.encode())
        )
        for text in NUMBERS
    }


@table({text[:20]: NUMBERS[text] for text in NUMBERS})
def test_a_number_is_kept(
    bot: Bot, numbers: dict[str, httpx.Response], case: tuple[str, float]
) -> None:
    """A whole number beyond 64 bits is kept as a double."""
    text, value = case
    assert_ok(numbers[text], stored=1, warnings=[])
    row = bot.conversation(numbers[text])
    assert fields(row["custom"]) == {"seats": value}
    assert fields(row["user_other"]) == {"other": [value]}
    assert float(row["user_mrr"]) == float(value)


def kept_bytes(row: dict[str, Any]) -> int:
    """Return at least how much a conversation's fields take: less than any encoding of them."""
    found = [row["user_name"] or "", row["organization_name"] or "", row["session_page_url"] or ""]
    for column in ("user_other", "organization_other", "session_other", "custom"):
        found += [f"{name}{value}" for name, value in fields(row[column]).items()]
    return sum(len(text.encode()) for text in found)


def large(count: int, size: int, prefix: str = "f") -> dict[str, str]:
    return {f"{prefix}{number:02}": "x" * size for number in range(count)}


@pytest.mark.parametrize("part", ["user", "organization", "session"])
def test_fields_beyond_64_kib_are_left_out_with_a_warning(bot: Bot, part: str) -> None:
    sent = large(80, 1000)
    answer = bot.post(body(**{part: sent}))
    warnings = assert_ok(answer, stored=1)["warnings"]
    row = bot.conversation(answer)
    kept = fields(row[f"{part}_other"])
    assert kept_bytes(row) <= KIB_64
    assert 60 <= len(kept) < 66
    assert len(warnings) == len(sent) - len(kept)
    for name in sent:
        assert (name in kept) != any(name in warning for warning in warnings)


def test_custom_fields_beyond_64_kib_warn_once_each(bot: Bot) -> None:
    sent = large(80, 1000)
    answer = bot.post(body(custom=sent))
    warnings = assert_ok(answer, stored=1)["warnings"]
    row = bot.conversation(answer)
    assert kept_bytes(row) <= KIB_64
    assert 60 <= len(fields(row["custom"])) < 66
    for name in sent:
        assert len([warning for warning in warnings if name in warning]) == 1, name


def test_the_parts_share_64_kib(bot: Bot) -> None:
    parts = {part: large(25, 1000) for part in ("user", "organization", "session", "custom")}
    answer = bot.post(body(**parts))
    assert_ok(answer, stored=1)
    row = bot.conversation(answer)
    assert 60_000 < kept_bytes(row) <= KIB_64


@pytest.mark.parametrize(
    "text", ["x" * 70_000, "é" * 40_000, "\0" * 70_000], ids=["ascii", "é", "NUL"]
)
def test_one_field_beyond_64_kib(bot: Bot, text: str) -> None:
    answer = bot.post(body(user={"name": text, "email": "a@b"}))
    assert len(assert_ok(answer, stored=1)["warnings"]) == 1
    row = bot.conversation(answer)
    assert (row["user_name"], row["user_email"]) == (None, "a@b")


def test_a_full_conversation_takes_messages_and_known_fields_still(bot: Bot) -> None:
    first = body(user=large(64, 1000), session={"device": "phone"})
    assert_ok(bot.post(first), stored=1)
    same = {"conversationId": first["conversationId"], "messages": [message()]}

    answer = bot.post({**same, "custom": {"plan": "x" * 3000}})
    assert len(assert_ok(answer, stored=1)["warnings"]) == 1
    row = bot.conversation(answer, 2)
    assert fields(row["custom"]) == {}
    assert len(fields(row["user_other"])) >= 60

    answer = bot.post({**same, "user": {"f00": "y" * 1000}})
    assert_ok(answer, stored=1, warnings=[])
    assert fields(bot.conversation(answer, 3)["user_other"])["f00"] == "y" * 1000

    answer = bot.post({**same, "user": {"f00": "z" * 30_000}})
    assert_ok(answer, stored=1)
    assert kept_bytes(bot.conversation(answer, 4)) <= KIB_64
