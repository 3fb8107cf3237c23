"""The answer to a capture: identity, exact counts, analysis, preferences."""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from schemas.analysis import KINDS
from tests.contract.client import (
    CAPTURE,
    EXACT,
    FULL,
    PROVISIONAL,
    ROW_SECONDS,
    Bot,
    assert_ok,
    body,
    message,
    table,
    unique,
)
from tests.stack import Stack, wait_until


@pytest.fixture(scope="module")
def other(stack: Stack) -> Iterator[Bot]:
    """Return another chatbot, whose analysis is off."""
    made = Bot(stack, unique("analysis-off"))
    made.openbat("set", "analysis=off")
    wait_until(lambda: not made.post(body()).json()["analysisQueued"], 2, "analysis off")
    with contextlib.closing(made):
        yield made


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    """Return a place to note how many messages a conversation has."""
    return {}


def test_the_answer_has_these_members_only(bot: Bot) -> None:
    found = assert_ok(bot.post({**FULL, "conversationId": unique()}), stored=3)
    assert found["analysisQueued"] is True
    assert found["warnings"] == []


@pytest.mark.parametrize("name", ["x", "conv 1/é😀", "x" * 255, "😀" * 255, "a\0b", "\n"])
def test_the_conversation_id_is_a_uuid_of_the_chatbot_and_the_name(
    stack: Stack, demo: httpx.Client, name: str
) -> None:
    expected = str(uuid.uuid5(uuid.UUID(stack.state["chatbot_id"]), name))
    for _ in range(2):
        answer = demo.post(CAPTURE, json=body(conversationId=name), headers=EXACT)
        assert assert_ok(answer)["conversationId"] == expected


def test_two_chatbots_never_share_a_conversation(bot: Bot, other: Bot) -> None:
    capture = body(message(id="msg_001"))
    found = {made.name: assert_ok(made.post(capture), stored=1) for made in (bot, other)}
    assert found[bot.name]["conversationId"] != found[other.name]["conversationId"]
    expected = str(uuid.uuid5(uuid.UUID(bot.id()), capture["conversationId"]))
    assert found[bot.name]["conversationId"] == expected


A, B, C = (message(id=name, content=name) for name in "abc")
NEW = message()
LONG = "é" * 255


@table(
    {
        "new": [([A, B], 2)],
        "earlier in this request": [([A, A], 1)],
        "earlier in this request, 100 times": [([A] * 100, 1)],
        "earlier in this request, other content": [([A, {**A, "content": "other"}], 1)],
        "earlier in this request, other role": [([A, {**A, "role": "assistant"}], 1)],
        "an earlier request": [([A, B], 2), ([A, B], 0)],
        "some of an earlier request": [([A, B], 2), ([B, C], 1), ([A, B, C], 0)],
        "in another order": [([A, B], 2), ([B, A], 0)],
        "without id is always new": [([NEW], 1), ([NEW], 1), ([NEW, NEW], 2)],
        "null id is always new": [([message(id=None)] * 2, 2), ([message(id=None)], 1)],
        "with and without id": [([A, NEW], 2), ([A, NEW], 1), ([NEW, A, NEW, B], 3)],
        "ids are told apart exactly": [([message(id=i) for i in ("a", "A", "a ", "á", "a\0")], 5)],
        "long ids": [([message(id=LONG), message(id=LONG[:-1] + "e")], 2), ([message(id=LONG)], 0)],
        "composed and decomposed": [([message(id="é"), message(id="e\u0301")], 2)],
    }
)
def test_messages_stored_is_exact(
    bot: Bot, counted: dict[str, int], case: list[tuple[list[Any], int]]
) -> None:
    conversation = unique()
    for messages, expected in case:
        answer = bot.post(body(*messages, conversationId=conversation))
        found = assert_ok(answer, stored=expected, warnings=[])
        assert found["analysisQueued"] is (expected > 0)
    counted[conversation] = sum(stored for _, stored in case)


def test_the_first_of_two_with_one_id_is_kept(bot: Bot) -> None:
    capture = body(message(id="a", content="first"), message(id="a", content="second"))
    assert bot.count(capture) == 1
    capture["messages"] = [message(id="a", role="system", content="third"), message(id="b")]
    answer = bot.post(capture)
    rows = bot.messages(answer, 2)
    assert [(row["role"], row["content"]) for row in rows] == [
        ("user", "first"),
        ("user", "Hello"),
    ]


def test_two_conversations_may_hold_the_same_id(bot: Bot) -> None:
    for _ in range(2):
        assert bot.count(body(message(id="msg_001"))) == 1


def repeatable(*texts: str) -> list[dict[str, Any]]:
    return [message(content=text) for text in texts]


Step = tuple[str | None, list[dict[str, Any]], int]
WITH_IDS = [message(id="a"), message(id="b")]


@table(
    {
        "same key, same messages": [("k", repeatable("a", "b"), 2), ("k", repeatable("a", "b"), 0)],
        "three times": [("k", repeatable("a"), 1)] + [("k", repeatable("a"), 0)] * 2,
        "same key, other messages": [("k", repeatable("a"), 1), ("k", repeatable("b"), 1)],
        "same key, other role": [
            ("k", [message(role="user")], 1),
            ("k", [message(role="assistant")], 1),
        ],
        "other key": [("k", repeatable("a"), 1), ("l", repeatable("a"), 1)],
        "then no key": [("k", repeatable("a"), 1), (None, repeatable("a"), 1)],
        "empty key is none": [("", repeatable("a"), 1), ("", repeatable("a"), 1)],
        "equal messages in one request": [
            ("k", repeatable("a", "a"), 2),
            ("k", repeatable("a", "a"), 0),
        ],
        "messages with ids": [("k", WITH_IDS, 2), ("k", WITH_IDS, 0), ("l", WITH_IDS, 0)],
        "some with ids": [("k", [A, NEW], 2), ("k", [A, NEW], 0), ("l", [A, NEW], 1)],
        "a long key": [("k" * 2000, repeatable("a"), 1), ("k" * 2000, repeatable("a"), 0)],
        "keys that differ at the end": [
            ("k" * 2000 + "a", repeatable("a"), 1),
            ("k" * 2000 + "b", repeatable("a"), 1),
        ],
        "a quoted key": [('"k"', repeatable("a"), 1), ('"k"', repeatable("a"), 0)],
    }
)
def test_an_idempotency_key(bot: Bot, counted: dict[str, int], case: list[Step]) -> None:
    """Without sentAt the time differs from one repeat to the next; the messages are the same."""
    conversation = unique()
    for key, messages, expected in case:
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = bot.post(body(*messages, conversationId=conversation), **headers)
        assert_ok(answer, stored=expected, warnings=[])
    counted[conversation] = sum(stored for _, _, stored in case)


def test_an_idempotency_key_belongs_to_conversation_and_chatbot(bot: Bot, other: Bot) -> None:
    capture = body()
    for made, sent, expected in [(bot, capture, 1), (bot, body(), 1), (other, capture, 1)]:
        assert made.count(sent, Idempotency_Key="k") == expected
        assert made.count(sent, Idempotency_Key="k") == 0


def test_a_repeat_may_be_written_otherwise(bot: Bot) -> None:
    """Neither the order of members nor spaces nor escapes make other messages."""
    name = unique().encode()
    first = b'{"conversationId":"%s","messages":[{"role":"user","content":"\xc3\xa9"}]}' % name
    again = (
        b' {"messages" : [ {"content":"\\u00e9", "role":"user"} ], "conversationId": "%s"} ' % name
    )
    for content, expected in [(first, 1), (again, 0)]:
        answer = bot.post_bytes(content, Idempotency_Key="k")
        assert_ok(answer, stored=expected, warnings=[])


def test_there_are_as_many_rows_as_were_counted(bot: Bot, counted: dict[str, int]) -> None:
    """Of all conversations above."""
    names = ", ".join(f"'{name}'" for name in counted) or "''"
    query = (
        "SELECT external_conversation_id AS name, count() AS rows FROM openbat.messages "
        f"WHERE name IN ({names}) GROUP BY name ORDER BY name"
    )
    expected = [{"name": name, "rows": counted[name]} for name in sorted(counted)]
    assert bot.stack.wait_sql(query, expected, ROW_SECONDS) == expected


async def _in_parallel(bot: Bot, captures: list[Any], **headers: str) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {bot.key}", **EXACT, **headers}
    async with httpx.AsyncClient(
        base_url=bot.stack.gateway_url, headers=headers, timeout=60
    ) as client:
        answers = await asyncio.gather(*(client.post(CAPTURE, json=sent) for sent in captures))
    return [assert_ok(answer, warnings=[]) for answer in answers]


async def test_parallel_requests_are_counted_once(bot: Bot) -> None:
    conversations = [body(A, B, conversationId=unique()) for _ in range(8)]
    found = await _in_parallel(bot, conversations * 6)
    assert sum(answer["messagesStored"] for answer in found) == 16
    assert all(answer["messagesStored"] in {0, 2} for answer in found)
    assert all(answer["analysisQueued"] is (answer["messagesStored"] > 0) for answer in found)


async def test_parallel_requests_that_overlap(bot: Bot) -> None:
    conversation = unique()
    captures = [
        body(*(message(id=f"m{n}") for n in range(start, start + 20)), conversationId=conversation)
        for start in range(0, 100, 5)
    ]
    found = await _in_parallel(bot, captures)
    assert sum(answer["messagesStored"] for answer in found) == 115


async def test_parallel_repeats_of_an_idempotency_key(bot: Bot) -> None:
    capture = body(NEW, message(content="other"))
    found = await _in_parallel(bot, [capture] * 12, **{"Idempotency-Key": "k"})
    assert sum(answer["messagesStored"] for answer in found) == 2


async def test_parallel_messages_without_id_are_all_new(bot: Bot) -> None:
    found = await _in_parallel(bot, [body(NEW, NEW)] * 12)
    assert [answer["messagesStored"] for answer in found] == [2] * 12


def test_analysis_off_queues_nothing(bot: Bot, other: Bot) -> None:
    capture = body(message(id="a"))
    for made, expected in [(bot, True), (other, False)]:
        assert assert_ok(made.post(capture), stored=1)["analysisQueued"] is expected
        assert assert_ok(made.post(capture), stored=0)["analysisQueued"] is False


def test_kinds_that_are_switched_off_one_by_one_queue_nothing(stack: Stack) -> None:
    made = Bot(stack, unique("kinds-off"))

    def queued() -> bool:
        return bool(assert_ok(made.post(body()), stored=1)["analysisQueued"])

    with contextlib.closing(made):
        *kinds, last = KINDS
        for kind in kinds:
            made.openbat("set", f"analysis.{kind}=off")
        assert f"analysis       {last}\n" in made.openbat("show")
        assert queued()
        made.openbat("set", f"analysis.{last}=off")
        assert "analysis       off\n" in made.openbat("show")
        wait_until(lambda: not queued(), 2, "all kinds off")
        made.openbat("set", f"analysis.{last}=on")
        wait_until(queued, 2, "one kind on again")


@pytest.mark.parametrize(
    "value", ["respond-async", "Respond-Async", "respond-async, foo=bar", "foo; a=1, respond-async"]
)
def test_respond_async_is_answered_provisionally(bot: Bot, value: str) -> None:
    answer = bot.post(body(), Prefer=value)
    assert_ok(answer, warnings=[PROVISIONAL])
    assert "respond-async" in answer.headers["preference-applied"].lower()


def test_without_a_preference_none_is_applied(bot: Bot) -> None:
    answer = bot.client.post(CAPTURE, json=body())
    assert assert_ok(answer, stored=1)["warnings"] in ([], [PROVISIONAL])
    assert "preference-applied" not in answer.headers


def test_what_was_answered_provisionally_is_stored(bot: Bot) -> None:
    capture = body(A, B)
    answer = bot.post(capture, Prefer="respond-async")
    assert_ok(answer, warnings=[PROVISIONAL])
    assert bot.count(capture) == 0
    assert len(bot.messages(answer, 2)) == 2


@table(
    {
        "two lines": [(b"Prefer", b"foo"), (b"Prefer", b"respond-async")],
        "two lines, reversed": [(b"Prefer", b"respond-async"), (b"Prefer", b"foo")],
    }
)
def test_prefer_may_be_several_headers(bot: Bot, case: list[tuple[bytes, bytes]]) -> None:
    answer = bot.client.post(CAPTURE, json=body(), headers=case)
    assert_ok(answer, warnings=[PROVISIONAL])
    assert answer.headers["preference-applied"] == "respond-async"


@pytest.mark.parametrize(
    "value", ['foo="a, respond-async, b"', "foo; respond-async", "respond-asyncs"]
)
def test_another_preference_is_not_respond_async(bot: Bot, value: str) -> None:
    assert "preference-applied" not in bot.post(body(), Prefer=value).headers


@pytest.mark.parametrize("value", ["wait=5", "Wait=5", 'wait="5"', "wait=100000", "wait=5, foo"])
def test_wait_is_answered_exactly(bot: Bot, value: str) -> None:
    answer = bot.post(body(), Prefer=value)
    assert_ok(answer, stored=1, warnings=[])
    assert "wait" in answer.headers["preference-applied"].lower()
    assert "respond-async" not in answer.headers["preference-applied"].lower()


@pytest.mark.parametrize(
    "value",
    ["", "wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "wait=²", "foo", ",,;=", "wait=0"],
)
def test_a_preference_that_says_nothing_is_no_error(bot: Bot, value: str) -> None:
    answer = bot.client.post(CAPTURE, json=body(), headers=[(b"Prefer", value.encode())])
    assert assert_ok(answer)["warnings"] in ([], [PROVISIONAL])
