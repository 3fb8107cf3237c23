"""A chatbot sees, changes and counts nothing of another's, whatever ids it makes up."""

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decode import conversation_id_of
from tests.contract.client import Bot, assert_ok, body, fields, message, unique
from tests.stack import Stack

OWNER = {"id": "u1", "email": "owner@example.com"}
INTRUDER = {"id": "u1", "email": "intruder@example.com", "plan": "stolen"}


@pytest.fixture(scope="module")
def other(stack: Stack) -> Iterator[Bot]:
    made = Bot(stack, unique("intruder"))
    with contextlib.closing(made):
        yield made


@pytest.fixture(scope="module")
def ids(bot: Bot, other: Bot) -> tuple[str, str]:
    return bot.id(), other.id()


def same(name: str, _uuid: str, _chatbot: str) -> str:
    return name


CRAFTED = {
    "the same conversationId": same,
    "the other's UUID": lambda _, found, __: found,
    "the other's UUID in capitals": lambda _, found, __: found.upper(),
    "the other's UUID as a URN": lambda _, found, __: f"urn:uuid:{found}",
    "the other's UUID in bytes": lambda _, found, __: uuid.UUID(found).bytes.decode("latin-1"),
    "the other chatbot's UUID before it": lambda name, _, chatbot: f"{chatbot}{name}",
    "the other chatbot's bytes before it": lambda name, _, chatbot: (
        uuid.UUID(chatbot).bytes.decode("latin-1") + name
    ),
    "a path to it": lambda name, _, chatbot: f"../{chatbot}/{name}",
    "SQL": lambda name, _, __: f"{name}' OR conversation_id != '",
    "NUL behind it": lambda name, _, __: f"{name}\0",
}


@pytest.mark.parametrize("crafted", list(CRAFTED.values()), ids=list(CRAFTED))
def test_no_conversation_of_another_chatbot_is_reached(
    bot: Bot, other: Bot, ids: tuple[str, str], crafted: Any
) -> None:
    own, others = ids
    capture = body(message(id="a"), message(id="b"), user=OWNER)
    answer = bot.post(capture)
    found = assert_ok(answer, stored=2)["conversationId"]
    name = crafted(capture["conversationId"], found, own)

    intruding = body(
        message(id="a", content="forged"), message(id="c"), user=INTRUDER, conversationId=name
    )
    intruded = other.post(intruding)
    # Both are new: what the other's conversation has seen says nothing here.
    elsewhere = assert_ok(intruded, stored=2)["conversationId"]
    assert elsewhere != found
    assert other.count(intruding) == 0

    assert bot.count(capture) == 0
    owners = bot.conversation(answer, messages=2)
    assert owners["chatbot_id"] == own
    assert owners["user_email"] == OWNER["email"]
    assert owners["user_plan"] is None
    assert fields(owners["user_other"]) == {}
    rows = bot.messages(answer, 2)
    assert {row["message_id"] for row in rows} == {"a", "b"}
    assert {row["content"] for row in rows} == {"Hello"}
    theirs = other.conversation(intruded, messages=2)
    assert theirs["chatbot_id"] == others
    assert theirs["external_conversation_id"] == name
    assert {row["chatbot_id"] for row in other.messages(intruded, 2)} == {others}


def test_an_idempotency_key_of_another_chatbot_is_another_key(bot: Bot, other: Bot) -> None:
    capture = body(message(), message())
    for chatbot in (bot, other):
        assert chatbot.count(capture, Idempotency_Key="shared") == 2
        assert chatbot.count(capture, Idempotency_Key="shared") == 0


names = st.text(min_size=1, max_size=255).filter(lambda name: name.isprintable() or "\0" in name)


@given(st.uuids(), st.uuids(), names, names)
def test_ids_differ_wherever_chatbot_or_name_differs(
    one: uuid.UUID, two: uuid.UUID, first: str, second: str
) -> None:
    made = {
        (chatbot, name): conversation_id_of(chatbot, name)
        for chatbot in (one, two)
        for name in (first, second)
    }
    assert len(set(made.values())) == len(made)
