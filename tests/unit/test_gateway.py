"""What the gateway decides from headers and the registry: who asks, how often, how long to wait."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import pytest
from limits.errors import ConfigurationError
from msgspec.structs import replace

from gateway.auth import authenticate
from gateway.errors import RefusedError
from gateway.limits import OFF, RateLimits
from gateway.prefer import Preference, preference
from gateway.registry import PARTITION, Registry, follow
from openbat.chatbots import new_key, with_key
from schemas.chatbots import (
    GENERATION_KEY,
    Chatbot,
    ChatbotSettings,
    Generation,
    State,
    chatbot_codec,
    generation_codec,
)
from schemas.codec import UndecodableError
from schemas.positions import MAX_GENERATION
from tests.unit.fakes import NO_SETTINGS, FakeConsumer, settled

KEY = "ob_live_" + "0123456789abcdef" * 2


def chatbot(
    number: int = 1,
    key: str = KEY,
    state: State = "active",
    settings: ChatbotSettings = NO_SETTINGS,
) -> Chatbot:
    made = Chatbot(
        id=str(UUID(int=number)),
        name=f"chatbot {number}",
        key_sha256=b"",
        key_prefix="",
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
        state=state,
        settings=settings,
    )
    return with_key(made, key)


def sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def entry(of: Chatbot) -> tuple[bytes, bytes]:
    return UUID(of.id).bytes, chatbot_codec.encode(of)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Preference()),
        ("respond-async", Preference(respond_async=True)),
        ("Respond-Async", Preference(respond_async=True)),
        ("respond-async; foo=bar", Preference(respond_async=True)),
        ("wait=5", Preference(wait_seconds=5)),
        ('wait="5"', Preference(wait_seconds=5)),
        ("WAIT = 5", Preference(wait_seconds=5)),
        ("wait=0", Preference(wait_seconds=0)),
        ("wait=31", Preference(wait_seconds=30)),
        ("wait=999999999", Preference(wait_seconds=30)),
        ("handling=lenient, wait=5", Preference(wait_seconds=5)),
        ("wait=5, wait=6", Preference(wait_seconds=5)),
        ("respond-async, wait=5", Preference(respond_async=True, wait_seconds=5)),
        ("wait=5,respond-async", Preference(respond_async=True, wait_seconds=5)),
        ('anything="a, respond-async, b"', Preference()),
        ('anything="a\\", wait=5, b"', Preference()),
        ("wait=-1", Preference()),
        ("wait=soon", Preference()),
        ("wait", Preference()),
        ("wait=5.5", Preference()),
        ("wait=9999999999", Preference()),
        ("wait=\u0665", Preference()),
        (",,;=", Preference()),
        ("return=minimal", Preference()),
    ],
)
def test_prefer(header: str, expected: Preference) -> None:
    assert preference([header], 30) == expected


@pytest.mark.parametrize("value", ['\\"', '"', "\\", ",", ";", '"\\', "wait ", "wait=1 "], ids=repr)
def test_a_hostile_prefer_header_takes_no_long_time(value: str) -> None:
    begun = time.process_time()
    for start in ("", '"'):
        preference([start + value * (64 * 1024 // len(value))], 30)
    assert time.process_time() - begun < 1


def test_several_prefer_headers_are_one() -> None:
    assert preference([], 30) == Preference()
    assert preference(["wait=5", "respond-async", "wait=6"], 30) == Preference(True, 5)


@pytest.mark.parametrize(
    ("asked", "applied"),
    [
        (Preference(), None),
        (Preference(respond_async=True), "respond-async"),
        (Preference(wait_seconds=30), "wait=30"),
        (Preference(respond_async=True, wait_seconds=1), "respond-async, wait=1"),
    ],
)
def test_what_was_applied_is_told(asked: Preference, applied: str | None) -> None:
    assert asked.applied == applied


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_a_key_finds_its_chatbot(header: str) -> None:
    known = chatbot()
    assert authenticate(header, {sha256(KEY): known}.get) is known


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY}0",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY.replace('a', 'b')}",
        "Bearer ob_live_ü",
        f"Bearer {KEY} {KEY}",
    ],
)
def test_anything_else_is_a_401(header: str | None) -> None:
    with pytest.raises(RefusedError) as refused:
        authenticate(header, {sha256(KEY): chatbot()}.get)
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}
    assert KEY not in refused.value.message


@pytest.mark.parametrize(
    "key", ["", "x", KEY[:-1], KEY + "0", KEY.upper(), KEY.replace("a", "b"), "ü" * 10_000]
)
def test_every_wrong_key_takes_the_same_work(key: str) -> None:
    """One hash of a key's length, one look-up: no time tells what is wrong with it."""
    looked_up: list[bytes] = []

    def nobody(key_sha256: bytes) -> None:
        looked_up.append(key_sha256)

    with pytest.raises(RefusedError):
        authenticate(f"Bearer {key}", nobody)
    assert len(looked_up) == 1
    assert len(looked_up[0]) == hashlib.sha256().digest_size


def test_what_is_looked_up_for_no_key_is_nobodys() -> None:
    """Not even a chatbot whose key were the stand-in could be reached by what is no key."""
    looked_up: list[bytes] = []
    for key in ("x", "y" * 40):
        with pytest.raises(RefusedError):
            authenticate(f"Bearer {key}", lambda found: looked_up.append(found))
    assert looked_up[0] == looked_up[1]
    assert all(sha256(new_key()) not in looked_up for _ in range(100))


def test_an_archived_chatbot_is_a_403() -> None:
    with pytest.raises(RefusedError) as refused:
        authenticate(f"Bearer {KEY}", {sha256(KEY): chatbot(state="archived")}.get)
    assert (refused.value.status, refused.value.code) == (403, "chatbot_archived")


def test_new_keys_are_of_the_form_that_is_taken() -> None:
    key = new_key()
    known = chatbot(key=key)
    assert authenticate(f"Bearer {key}", {known.key_sha256: known}.get) is known
    assert known.key_prefix == key[:14]


async def test_over_the_rate_is_a_429_that_says_when_to_come_back() -> None:
    limits = RateLimits("async+memory://", "2/hour")
    await limits.take(chatbot())
    await limits.take(chatbot())
    with pytest.raises(RefusedError) as refused:
        await limits.take(chatbot())
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")
    headers = refused.value.headers
    assert headers is not None
    seconds = int(headers["Retry-After"])
    assert 1 <= seconds <= 3600
    assert headers["RateLimit"] == f'"chatbot";r=0;t={seconds}'
    assert headers["RateLimit-Policy"] == '"chatbot";q=2;w=3600'


async def test_each_chatbot_has_a_rate_of_its_own() -> None:
    limits = RateLimits("async+memory://", "1/hour")
    for number in range(3):
        await limits.take(chatbot(number))
    generous = chatbot(9, settings=ChatbotSettings(rate_limit="3/hour"))
    for _ in range(3):
        await limits.take(generous)
    with pytest.raises(RefusedError):
        await limits.take(generous)


async def test_captures_are_let_through_while_rates_cannot_be_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = RateLimits("async+memory://", "1/hour")

    async def away(*_: object) -> bool:
        raise ValueError("what the store in memory has for an error")

    monkeypatch.setattr(limits._limiter, "hit", away)
    for _ in range(2):
        await limits.take(chatbot())


@pytest.mark.parametrize("storage", ["memory://", "nowhere", "async+nowhere://"])
def test_a_storage_that_cannot_be_used_is_refused(storage: str) -> None:
    with pytest.raises(ConfigurationError):
        RateLimits(storage, OFF)


@pytest.mark.parametrize(
    ("default", "settings"),
    [(OFF, NO_SETTINGS), ("1/hour", ChatbotSettings(rate_limit=OFF))],
)
async def test_a_rate_may_be_off(default: str, settings: ChatbotSettings) -> None:
    limits = RateLimits("async+memory://", default)
    for _ in range(5):
        await limits.take(chatbot(settings=settings))


async def test_a_rate_that_cannot_be_read_is_the_default() -> None:
    unreadable = chatbot(settings=ChatbotSettings(rate_limit="often"))
    for _ in range(3):
        await RateLimits("async+memory://", OFF).take(unreadable)
    limits = RateLimits("async+memory://", "1/hour")
    await limits.take(unreadable)
    with pytest.raises(RefusedError):
        await limits.take(unreadable)


def test_a_rate_of_a_window_beyond_doubles_is_undecodable() -> None:
    rate = ChatbotSettings(rate_limit=f"1/{'9' * 400} hour")
    with pytest.raises(UndecodableError):
        chatbot_codec.decode(chatbot_codec.encode(chatbot(settings=rate)))


def test_a_rotated_key_stops_at_once() -> None:
    registry = Registry()
    registry.apply(*entry(chatbot()))
    assert registry.chatbot_of(sha256(KEY)) == chatbot()
    rotated = chatbot(key=new_key())
    registry.apply(*entry(rotated))
    assert registry.chatbot_of(sha256(KEY)) is None
    assert registry.chatbot_of(rotated.key_sha256) == rotated
    assert registry.chatbots() == [rotated]


def test_an_archived_chatbot_is_still_known_by_its_key() -> None:
    registry = Registry()
    registry.apply(*entry(chatbot()))
    registry.apply(*entry(chatbot(state="archived")))
    assert registry.chatbot_of(sha256(KEY)) == chatbot(state="archived")


def test_a_removed_chatbot_is_gone_and_the_others_stay() -> None:
    registry = Registry()
    other = chatbot(2, new_key())
    registry.apply(*entry(chatbot()))
    registry.apply(*entry(other))
    for _ in range(2):
        registry.apply(UUID(chatbot().id).bytes, None)
    assert registry.chatbot_of(sha256(KEY)) is None
    assert registry.chatbots() == [other]


def test_a_key_of_an_entry_that_cannot_be_read_is_taken_no_more() -> None:
    registry = Registry()
    registry.apply(*entry(chatbot()))
    with pytest.raises(UndecodableError):
        registry.apply(UUID(chatbot().id).bytes, b"\xff")
    assert registry.chatbot_of(sha256(KEY)) is None
    assert registry.chatbots() == []


def test_the_newest_generation_counts() -> None:
    registry = Registry()
    for generation in (1, 2):
        registry.apply(GENERATION_KEY, generation_codec.encode(Generation(generation)))
    assert registry.generation == 2
    assert registry.chatbots() == []


@pytest.mark.parametrize(
    "key", [b"", b"x", bytes(16), UUID(int=2).bytes, UUID(int=1).bytes + b"\0"]
)
def test_a_chatbot_under_a_key_that_is_not_its_id_is_undecodable(key: bytes) -> None:
    registry = Registry()
    with pytest.raises(UndecodableError):
        registry.apply(key, chatbot_codec.encode(chatbot()))
    with pytest.raises(UndecodableError):
        registry.apply(key, chatbot_codec.encode(replace(chatbot(), id="no UUID")))
    assert registry.chatbots() == []


@pytest.mark.parametrize("number", [-1, MAX_GENERATION + 1])
def test_a_generation_that_positions_cannot_hold_is_undecodable(number: int) -> None:
    registry = Registry()
    registry.apply(GENERATION_KEY, generation_codec.encode(Generation(2)))
    with pytest.raises(UndecodableError):
        registry.apply(GENERATION_KEY, generation_codec.encode(Generation(number)))
    assert registry.generation == 2


async def test_the_registry_follows_its_topic_past_what_cannot_be_read() -> None:
    registry = Registry()
    entries = [entry(chatbot()), (b"x", b"\xff"), entry(chatbot(2, new_key()))]
    records = [
        SimpleNamespace(key=key, value=value, offset=offset)
        for offset, (key, value) in enumerate(entries)
    ]
    consumer = FakeConsumer([{PARTITION: records[:1]}, {}, {PARTITION: records[1:]}])
    following = asyncio.create_task(follow(consumer, registry))
    await consumer.at_end.wait()
    following.cancel()
    await settled()
    assert [known.name for known in registry.chatbots()] == ["chatbot 1", "chatbot 2"]
