"""The admin API: the real app and the commands' own code, over a registry in memory."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
import structlog
from aiokafka.errors import ProducerFenced
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from gateway import openapi
from gateway.admin import BODY_BYTES, CHATBOTS, AdminApi
from gateway.app import make_app
from gateway.auth import authenticate
from gateway.chatbot_settings import (
    AnalysisPatch,
    AnalysisView,
    SettingsPatch,
    SettingsView,
    merged,
)
from gateway.custom_fields import merged_fields
from gateway.errors import RefusedError, unavailable
from gateway.metrics import GatewayMetrics
from gateway.registry import Registry
from openbat import admin, chatbots
from openbat.admin import RegistryChatbots
from openbat.connection import Connection
from openbat.local import state
from schemas.analysis import KINDS
from schemas.chatbots import DEMO, FIELD_TYPES, Chatbot, ChatbotSettings, FieldType, State
from tests.unit.test_gateway import KEY, chatbot, entry

ADMIN = "secret-secret-secret"
BEARER = {"Authorization": f"Bearer {ADMIN}"}
NOBODY = str(UUID(int=99))

NEW_SETTINGS: dict[str, Any] = {
    "rate_limit": None,
    "remember_days": None,
    "analysis": dict.fromkeys(KINDS, True),
    "intents": [],
    "flags": [],
    "tokens_per_day": None,
    "cost_per_day": None,
    "custom_fields": {},
}


class Log:
    """The registry's topic, and the gateway that follows it: at once, late, or not at all."""

    def __init__(self) -> None:
        self.written = Registry()
        self.followed = Registry()
        self.follows = True
        self.late_seconds = 0.0
        self.failing: Exception | None = None
        self.hangs = False
        self.writers = self.most_writers = 0

    def put(self, *bots: Chatbot) -> None:
        for bot in bots:
            for registry in (self.written, self.followed):
                registry.apply(*entry(bot))

    async def edit(self, _: Connection, change: Callable[[Registry], Any]) -> None:
        self.writers += 1
        self.most_writers = max(self.most_writers, self.writers)
        try:
            await asyncio.sleep(0)
            if self.failing is not None:
                raise self.failing
            if self.hangs:
                await asyncio.Event().wait()
            for key, value in change(self.written):
                self.written.apply(key, value)
                if self.follows:
                    loop = asyncio.get_running_loop()
                    loop.call_later(self.late_seconds, self.followed.apply, key, value)
        finally:
            self.writers -= 1

    def status_of(self, key: str) -> int:
        """Return what the key of a capture is answered with."""
        try:
            authenticate(f"Bearer {key}", self.followed.chatbot_of)
        except RefusedError as error:
            return error.status
        return 200


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(chatbots, "edit_registry", made.edit)
    return made


def app_of(key: str | None, store: Callable[[], RegistryChatbots]) -> Starlette:
    async def nothing(*_: object) -> Any:
        raise AssertionError("not asked")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield

    return make_app(
        nothing, nothing, lifespan, "test", GatewayMetrics(), AdminApi(key, store).routes()
    )


def client_of(key: str | None, store: Callable[[], RegistryChatbots]) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app_of(key, store))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=BEARER)


@pytest.fixture
def store(log: Log, tmp_path: Path) -> RegistryChatbots:
    return RegistryChatbots(Connection("nowhere"), log.followed, tmp_path, asyncio.Lock())


@pytest.fixture
async def client(store: RegistryChatbots) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(ADMIN, lambda: store) as made:
        yield made


def assert_error(answer: httpx.Response, status: int, code: str, path: str | None = None) -> str:
    """Check an error's whole shape; return its message."""
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (status, code), body
    message = body["error"].pop("message")
    assert message
    expected = {"code": code} if path is None else {"code": code, "path": path}
    assert body == {"ok": False, "error": expected}
    return str(message)


OPERATIONS = [
    ("GET", CHATBOTS),
    ("POST", CHATBOTS),
    ("GET", f"{CHATBOTS}/{NOBODY}"),
    ("PATCH", f"{CHATBOTS}/{NOBODY}"),
    ("DELETE", f"{CHATBOTS}/{NOBODY}"),
    ("POST", f"{CHATBOTS}/{NOBODY}/rotate-key"),
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_without_an_admin_key_there_is_no_admin_api(
    store: RegistryChatbots, method: str, path: str
) -> None:
    async with client_of(None, lambda: store) as client:
        answer = await client.request(method, path)
    assert "OPENBAT_ADMIN_KEY" in assert_error(answer, 404, "admin_off")


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", ADMIN, f"Basic {ADMIN}", f"Bearer {ADMIN}0",
        f"Bearer {ADMIN[:-1]}", f"Bearer {ADMIN.upper()}", f"Bearer {KEY}", "Bearer é",
        f"Bearer {ADMIN} {ADMIN}",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_who_has_not_the_admin_key_learns_nothing(
    client: httpx.AsyncClient, log: Log, method: str, path: str, header: str
) -> None:
    log.put(chatbot())
    headers = {b"Authorization": header.encode("latin-1")}
    answer = await client.request(method, path, content=b"{", headers=headers)
    assert ADMIN not in assert_error(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_admin_key_captures_nothing(client: httpx.AsyncClient, log: Log) -> None:
    log.put(chatbot())
    assert (await client.get(CHATBOTS)).status_code == 200
    assert log.status_of(KEY) == 200
    assert log.status_of(ADMIN) == 401


async def test_until_the_registry_is_read_it_is_a_503() -> None:
    def starting() -> RegistryChatbots:
        raise unavailable("starting", "The gateway is starting.")

    async with client_of(ADMIN, starting) as client:
        assert_error(await client.get(CHATBOTS), 503, "starting")
        wrong = {"Authorization": "Bearer secret"}
        assert_error(await client.get(CHATBOTS, headers=wrong), 401, "unauthorized")


async def test_a_chatbot_is_made_and_its_key_is_good_at_once(
    client: httpx.AsyncClient, log: Log
) -> None:
    log.late_seconds = 0.02
    answer = await client.post(CHATBOTS, json={"name": "shop"})
    body = answer.json()
    key, made = body["apiKey"], body["chatbot"]
    assert answer.status_code == 201
    assert log.status_of(key) == 200
    assert answer.headers["location"] == f"{CHATBOTS}/{made['id']}"
    assert answer.headers["cache-control"] == "no-store"
    known = log.written.chatbot(UUID(made["id"]).bytes)
    assert known is not None
    assert body.keys() == {"ok", "chatbot", "apiKey"}
    assert made == {
        "id": known.id,
        "name": "shop",
        "api_key_prefix": key[:14],
        "settings": NEW_SETTINGS,
        "created_at": known.created_at.isoformat().replace("+00:00", "Z"),
        "state": "pending",
    }
    got = await client.get(answer.headers["location"])
    assert (got.status_code, got.json()) == (200, {"ok": True, "chatbot": made})


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$"),
        ({"name": 1}, "$.name"),
        ({"name": None}, "$.name"),
        ({"name": ""}, "$.name"),
        ({"name": "x" * 256}, "$.name"),
        ({"name": "shop", "settings": {}}, "$.settings"),
        ([], "$"),
    ],
)
async def test_a_chatbot_that_is_asked_for_wrongly_is_a_400(
    client: httpx.AsyncClient, log: Log, body: Any, path: str
) -> None:
    assert_error(await client.post(CHATBOTS, json=body), 400, "invalid_body", path)
    assert log.written.chatbots() == []


@pytest.mark.parametrize("name", [" ", " shop", "shop ", "a\nb", "a\u202eb"])
async def test_a_name_that_can_not_be_is_a_400(
    client: httpx.AsyncClient, log: Log, name: str
) -> None:
    log.put(chatbot())
    one = f"{CHATBOTS}/{chatbot().id}"
    for answer in (
        await client.post(CHATBOTS, json={"name": name}),
        await client.patch(one, json={"name": name}),
    ):
        assert "1 to 255" in assert_error(answer, 400, "invalid_name", "$.name")
    assert log.written.chatbots() == [chatbot()]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"name": "\\ud800"}', b"[" * 100_000])
async def test_what_is_no_json_is_a_400(client: httpx.AsyncClient, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post(CHATBOTS, content=content, headers=headers)
    assert answer.json()["error"]["code"] in {"invalid_json", "invalid_body"}
    assert (answer.status_code, answer.json()["error"]["path"]) == (400, "$")


async def test_bodies_are_bounded_and_json(client: httpx.AsyncClient) -> None:
    large = b'{"name": "' + b"x" * BODY_BYTES + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = await client.post(CHATBOTS, content=large, headers=headers)
    assert f"{BODY_BYTES} bytes" in assert_error(answer, 413, "body_too_large")
    answer = await client.post(CHATBOTS, content=b"{}", headers={"Content-Type": "text/plain"})
    assert_error(answer, 415, "unsupported_content_type")


async def test_chatbots_are_listed_by_name_in_pages(client: httpx.AsyncClient, log: Log) -> None:
    log.put(*(chatbot(number, chatbots.new_key()) for number in (3, 1, 2)))
    whole = (await client.get(CHATBOTS)).json()
    names = [known["name"] for known in whole.pop("chatbots")]
    assert names == ["chatbot 1", "chatbot 2", "chatbot 3"]
    assert whole == {"ok": True, "page": 1, "limit": 100, "total": 3}
    second = (await client.get(CHATBOTS, params={"page": 2, "limit": 2})).json()
    assert [known["name"] for known in second["chatbots"]] == ["chatbot 3"]
    assert second["total"] == 3
    assert (await client.get(CHATBOTS, params={"page": 3, "limit": 2})).json()["chatbots"] == []
    assert re.search("ob_live_[0-9a-f]{7}", (await client.get(CHATBOTS)).text) is None


@pytest.mark.parametrize("name", ["page", "limit"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "\u0663", "9" * 5000])
async def test_a_page_that_can_not_be_is_a_400(
    client: httpx.AsyncClient, name: str, value: str
) -> None:
    answer = await client.get(CHATBOTS, params={name: value})
    assert name in assert_error(answer, 400, "invalid_query")


@pytest.mark.parametrize("chatbot_id", [NOBODY, "chatbot 1", "x", "0"])
@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-key")]
)
async def test_there_is_no_such_chatbot(
    client: httpx.AsyncClient, log: Log, method: str, rest: str, chatbot_id: str
) -> None:
    log.put(chatbot())
    answer = await client.request(method, f"{CHATBOTS}/{chatbot_id}{rest}", json={})
    assert_error(answer, 404, "chatbot_not_found")


async def test_settings_are_merged_deeply(client: httpx.AsyncClient, log: Log) -> None:
    log.put(chatbot())
    one = f"{CHATBOTS}/{chatbot().id}"

    async def patched(**settings: Any) -> Any:
        answer = await client.patch(one, json={"settings": settings})
        assert answer.status_code == 200, answer.text
        return answer.json()["chatbot"]["settings"]

    wanted = dict(NEW_SETTINGS, analysis=dict(NEW_SETTINGS["analysis"], topics=False))
    assert await patched(analysis={"topics": False}) == wanted
    wanted["analysis"]["flags"] = False
    wanted |= {"rate_limit": "600/minute", "remember_days": 30}
    found = await patched(analysis={"flags": False}, rate_limit="600/minute", remember_days=30)
    assert found == wanted
    wanted |= {"intents": ["order", "return"], "tokens_per_day": 0, "cost_per_day": 2.5}
    found = await patched(intents=[" order", "return", "order"], tokens_per_day=0, cost_per_day=2.5)
    assert found == wanted
    wanted |= {"custom_fields": {"plan": "string", "seats": "number"}}
    assert await patched(custom_fields={"plan": "string", "seats": "number"}) == wanted
    wanted |= {"custom_fields": {"plan": "boolean"}}
    assert await patched(custom_fields={"plan": "boolean", "seats": None, "none": None}) == wanted
    wanted["analysis"]["topics"] = True
    assert await patched(analysis={"topics": None}, intents=["order"]) == wanted | {
        "intents": ["order"]
    }
    assert await patched() == wanted | {"intents": ["order"]}
    assert await patched(**dict.fromkeys(NEW_SETTINGS)) == NEW_SETTINGS
    assert log.written.chatbots() == [chatbot()]


async def test_what_another_writer_changed_stays(client: httpx.AsyncClient, log: Log) -> None:
    """A change is made to the chatbot as it is in the log, not as this gateway knows it."""
    log.put(chatbot())
    elsewhere = chatbot(settings=ChatbotSettings(rate_limit="5/minute", flags=("vip",)))
    log.written.apply(*entry(elsewhere))
    one = f"{CHATBOTS}/{chatbot().id}"
    answer = await client.patch(one, json={"settings": {"remember_days": 30}})
    settings = answer.json()["chatbot"]["settings"]
    assert (settings["rate_limit"], settings["flags"]) == ("5/minute", ["vip"])
    assert settings["remember_days"] == 30


@pytest.mark.parametrize(
    ("settings", "code", "path"),
    [
        ({"colour": "red"}, "invalid_body", "$.settings.colour"),
        ({"rate-limit": "off"}, "invalid_body", "$.settings.rate-limit"),
        ({"analysis": {"mood": True}}, "invalid_body", "$.settings.analysis.mood"),
        ({"analysis": {"topics": "off"}}, "invalid_body", "$.settings.analysis.topics"),
        ({"analysis": False}, "invalid_body", "$.settings.analysis"),
        ({"rate_limit": 600}, "invalid_body", "$.settings.rate_limit"),
        ({"rate_limit": "often"}, "invalid_setting", "$.settings.rate_limit"),
        ({"rate_limit": "0/minute"}, "invalid_setting", "$.settings.rate_limit"),
        ({"rate_limit": f"1/{'9' * 400} hour"}, "invalid_body", "$.settings.rate_limit"),
        ({"remember_days": 7}, "invalid_body", "$.settings.remember_days"),
        ({"remember_days": 36_501}, "invalid_body", "$.settings.remember_days"),
        ({"intents": "a"}, "invalid_body", "$.settings.intents"),
        ({"intents": ["none"]}, "invalid_setting", "$.settings.intents"),
        ({"intents": ["a,b"]}, "invalid_setting", "$.settings.intents"),
        ({"flags": ["x" * 65]}, "invalid_body", "$.settings.flags[0]"),
        ({"flags": [" "]}, "invalid_setting", "$.settings.flags"),
        ({"flags": ["a\nb"]}, "invalid_setting", "$.settings.flags"),
        ({"flags": [f"f{n}" for n in range(101)]}, "invalid_body", "$.settings.flags"),
        ({"tokens_per_day": -1}, "invalid_body", "$.settings.tokens_per_day"),
        ({"tokens_per_day": 10**15}, "invalid_body", "$.settings.tokens_per_day"),
        ({"tokens_per_day": 10**30}, "invalid_body", "$.settings.tokens_per_day"),
        ({"cost_per_day": -0.5}, "invalid_body", "$.settings.cost_per_day"),
        ({"cost_per_day": True}, "invalid_body", "$.settings.cost_per_day"),
        ({"custom_fields": []}, "invalid_body", "$.settings.custom_fields"),
        ({"custom_fields": {"plan": "text"}}, "invalid_setting", "$.settings.custom_fields.plan"),
        ({"custom_fields": {"plan": 1}}, "invalid_body", "$.settings.custom_fields[...]"),
        ({"custom_fields": {"": "string"}}, "invalid_setting", "$.settings.custom_fields"),
        ({"custom_fields": {"x" * 256: None}}, "invalid_setting", "$.settings.custom_fields"),
        (
            {"custom_fields": {f"f{n}": "string" for n in range(1001)}},
            "invalid_body",
            "$.settings.custom_fields",
        ),
    ],
)
async def test_a_setting_that_can_not_be_is_a_400_that_names_it(
    client: httpx.AsyncClient, log: Log, settings: Any, code: str, path: str
) -> None:
    log.put(chatbot())
    body = {"name": "another", "settings": {"remember_days": 9, **settings}}
    answer = await client.patch(f"{CHATBOTS}/{chatbot().id}", json=body)
    assert_error(answer, 400, code, path)
    assert log.written.chatbots() == [chatbot()]


async def test_a_chatbot_takes_only_so_many_custom_fields(
    client: httpx.AsyncClient, log: Log
) -> None:
    full = msgspec.structs.replace(chatbot(), schema={f"f{n}": "string" for n in range(1000)})
    log.put(full)
    one = f"{CHATBOTS}/{full.id}"
    answer = await client.patch(one, json={"settings": {"custom_fields": {"one more": "number"}}})
    assert_error(answer, 400, "invalid_setting", "$.settings.custom_fields")
    assert log.written.chatbots() == [full]
    exchange = {"f0": None, "one more": "number"}
    answer = await client.patch(one, json={"settings": {"custom_fields": exchange}})
    assert answer.status_code == 200
    assert len(answer.json()["chatbot"]["settings"]["custom_fields"]) == 1000


def test_each_kind_of_analysis_can_be_switched() -> None:
    assert AnalysisView.__struct_fields__ == AnalysisPatch.__struct_fields__ == KINDS


words = st.lists(st.sampled_from(["a", "b c", "größe"]), unique=True).map(tuple)


@given(
    st.builds(
        ChatbotSettings,
        st.sampled_from([None, "off", "600/minute"]),
        st.booleans(),
        st.sampled_from([0, 8, 36_500]),
        st.sets(st.sampled_from(KINDS), max_size=5).map(
            lambda off: tuple(kind for kind in KINDS if kind in off)
        ),
        words,
        words,
        st.none() | st.integers(0, 10**15 - 1),
        st.none() | st.floats(0, 10**14),
    ),
    st.dictionaries(st.text(min_size=1, max_size=255), st.sampled_from(FIELD_TYPES), max_size=5),
)
def test_what_is_shown_can_be_sent_back(
    settings: ChatbotSettings, schema: dict[str, FieldType]
) -> None:
    shown = SettingsView.of(msgspec.structs.replace(chatbot(), settings=settings, schema=schema))
    patch = msgspec.json.decode(msgspec.json.encode(shown), type=SettingsPatch)
    for before in (ChatbotSettings(), settings, ChatbotSettings("1/hour", analysis=False)):
        again = msgspec.structs.replace(
            chatbot(), settings=merged(before, patch), schema=merged_fields({}, patch.custom_fields)
        )
        assert SettingsView.of(again) == shown
        assert again.settings.analyses == settings.analyses


async def test_a_chatbot_is_renamed_where_the_name_is_free(
    client: httpx.AsyncClient, log: Log
) -> None:
    log.put(chatbot(1), chatbot(2, chatbots.new_key()))
    one = f"{CHATBOTS}/{chatbot().id}"
    answer = await client.patch(one, json={"name": "chatbot 2"})
    assert_error(answer, 409, "name_taken", "$.name")
    assert_error(
        await client.post(CHATBOTS, json={"name": "chatbot 2"}), 409, "name_taken", "$.name"
    )
    assert (await client.patch(one, json={"name": "chatbot 1"})).status_code == 200
    answer = await client.patch(one, json={"name": "shop"})
    assert (answer.status_code, answer.json()["chatbot"]["name"]) == (200, "shop")
    assert log.status_of(KEY) == 200


async def test_a_local_stacks_demo_keeps_its_name(client: httpx.AsyncClient, log: Log) -> None:
    demo = msgspec.structs.replace(chatbot(), name=DEMO)
    log.put(demo)
    answer = await client.patch(f"{CHATBOTS}/{demo.id}", json={"name": "shop"})
    assert_error(answer, 400, "invalid_name", "$.name")


async def test_a_chatbot_that_is_called_like_anothers_id_is_left_alone(
    client: httpx.AsyncClient, log: Log
) -> None:
    decoy = msgspec.structs.replace(chatbot(2, chatbots.new_key()), name=str(UUID(int=1)))
    log.put(decoy, chatbot(1))
    assert (await client.delete(f"{CHATBOTS}/{UUID(int=1)}")).status_code == 200
    assert log.written.chatbot(UUID(int=2).bytes) == decoy
    assert log.status_of(KEY) == 403


async def test_the_old_key_stops_at_once(client: httpx.AsyncClient, log: Log) -> None:
    log.put(chatbot())
    log.late_seconds = 0.02
    answer = await client.post(f"{CHATBOTS}/{chatbot().id}/rotate-key")
    new = answer.json()["apiKey"]
    assert answer.status_code == 200
    assert (log.status_of(KEY), log.status_of(new)) == (401, 200)
    assert answer.json()["chatbot"]["api_key_prefix"] == new[:14]


async def test_a_new_key_of_demo_is_kept_for_the_next_start_of_a_local_stack(
    client: httpx.AsyncClient, log: Log, tmp_path: Path
) -> None:
    demo = msgspec.structs.replace(chatbot(), name=DEMO)
    log.put(demo, chatbot(2, chatbots.new_key()))
    state.write(tmp_path, state.LocalState("", "", "", demo.id, KEY, []))
    with state.locked(tmp_path):
        await client.post(f"{CHATBOTS}/{UUID(int=2)}/rotate-key")
        assert state.read_text(tmp_path / "demo.key") == ""
        answer = await client.post(f"{CHATBOTS}/{demo.id}/rotate-key")
    assert state.read_text(tmp_path / "demo.key") == answer.json()["apiKey"]


async def test_deleting_archives(client: httpx.AsyncClient, log: Log) -> None:
    log.put(chatbot())
    one = f"{CHATBOTS}/{chatbot().id}"
    for _ in range(2):
        answer = await client.delete(one)
        assert (answer.status_code, answer.json()["chatbot"]["state"]) == (200, "archived")
    assert log.status_of(KEY) == 403
    assert (await client.get(one)).json() == answer.json()
    assert log.written.chatbots() == [chatbot(state="archived")]


@pytest.mark.parametrize("kept", ["active", "archived"])
async def test_a_chatbot_is_pending_until_its_first_capture(
    client: httpx.AsyncClient, log: Log, kept: State
) -> None:
    new = chatbot(state=kept)
    log.put(new)
    one = f"{CHATBOTS}/{new.id}"
    shown = "pending" if kept == "active" else kept
    assert (await client.get(one)).json()["chatbot"]["state"] == shown
    log.put(msgspec.structs.replace(new, first_capture_at=datetime(2026, 1, 1, tzinfo=UTC)))
    assert (await client.get(one)).json()["chatbot"]["state"] == kept
    assert (await client.patch(one, json={"name": "shop"})).json()["chatbot"]["state"] == kept


async def test_a_first_capture_that_is_noted_meanwhile_is_not_waited_for(
    client: httpx.AsyncClient, log: Log
) -> None:
    """This gateway may read a change and the first capture after it in one go."""
    log.put(chatbot())
    log.follows = False

    def follow() -> None:
        (written,) = log.written.chatbots()
        noted = msgspec.structs.replace(written, first_capture_at=datetime(2026, 1, 1, tzinfo=UTC))
        log.followed.apply(*entry(noted))

    asyncio.get_running_loop().call_later(0.05, follow)
    answer = await client.patch(f"{CHATBOTS}/{chatbot().id}", json={"name": "shop"})
    assert (answer.status_code, answer.json()["chatbot"]["name"]) == (200, "shop")


async def test_what_this_gateway_has_not_read_back_in_time_is_a_202(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.follows = False
    monkeypatch.setattr(admin, "LOOK_BACK_SECONDS", 0.01)
    answer = await client.post(CHATBOTS, json={"name": "shop"})
    assert answer.status_code == 202
    (made,) = log.written.chatbots()
    assert made.key_prefix == answer.json()["apiKey"][:14]


async def test_writes_of_one_gateway_do_not_fence_each_other_out(
    client: httpx.AsyncClient, log: Log
) -> None:
    names = [f"shop {number}" for number in range(10)]
    answers = await asyncio.gather(*(client.post(CHATBOTS, json={"name": name}) for name in names))
    assert [answer.status_code for answer in answers] == [201] * 10
    assert [known.name for known in log.written.chatbots()] == names
    assert log.most_writers == 1


async def test_only_so_many_writes_wait(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "MAX_WRITES", 2)
    names = [f"shop {number}" for number in range(5)]
    answers = await asyncio.gather(*(client.post(CHATBOTS, json={"name": name}) for name in names))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 503, 503, 503]
    assert len(log.written.chatbots()) == 2
    assert (await client.post(CHATBOTS, json={"name": "later"})).status_code == 201


async def test_while_the_log_is_away_it_is_a_503_and_nothing_is_changed(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.failing = ProducerFenced()
    answer = await client.post(CHATBOTS, json={"name": "shop"})
    assert_error(answer, 503, "log_away")
    assert answer.headers["retry-after"] == "1"
    log.failing, log.hangs = None, True
    monkeypatch.setattr(admin, "WRITE_SECONDS", 0.01)
    answer = await client.post(CHATBOTS, json={"name": "shop"})
    assert_error(answer, 503, "not_confirmed")
    assert log.written.chatbots() == []
    log.hangs = False
    monkeypatch.setattr(admin, "WRITE_SECONDS", 5.0)
    assert (await client.post(CHATBOTS, json={"name": "shop"})).status_code == 201


async def test_there_are_only_so_many_chatbots(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.put(chatbot())
    monkeypatch.setattr(chatbots, "MAX_CHATBOTS", 1)
    answer = await client.post(CHATBOTS, json={"name": "shop"})
    assert "1 chatbots" in assert_error(answer, 409, "too_many_chatbots")


async def test_no_key_is_logged_or_shown(
    client: httpx.AsyncClient, store: RegistryChatbots
) -> None:
    with structlog.testing.capture_logs() as logged:
        made = (await client.post(CHATBOTS, json={"name": "shop"})).json()
        one = f"{CHATBOTS}/{made['chatbot']['id']}"
        rotated = (await client.post(f"{one}/rotate-key")).json()
        await client.patch(one, json={"settings": {"flags": ["vip"]}})
        await client.delete(one)
        await client.get(CHATBOTS, headers={"Authorization": f"Bearer {ADMIN}0"})
    said = [(line["what"], line["chatbot"]) for line in logged if "what" in line]
    happened = ["created", "key rotated", "changed", "archived"]
    assert said == [(what, made["chatbot"]["id"]) for what in happened]
    shown = [repr(logged), repr(store), repr(AdminApi(ADMIN, lambda: store))]
    for secret in (ADMIN, made["apiKey"], rotated["apiKey"]):
        assert all(secret not in text for text in shown)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", CHATBOTS, {"GET", "HEAD", "POST"}),
        ("PUT", f"{CHATBOTS}/{NOBODY}", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("GET", f"{CHATBOTS}/{NOBODY}/rotate-key", {"POST"}),
    ],
)
async def test_another_method_is_told_which_there_are(
    client: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = await client.request(method, path)
    assert_error(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


def test_the_document_tells_of_every_operation_and_of_its_key() -> None:
    document = msgspec.json.decode(openapi.document("test"))
    told = {
        (method.upper(), path.replace("{id}", NOBODY)): operation
        for path, item in document["paths"].items()
        if path.startswith(CHATBOTS)
        for method, operation in item.items()
        if method != "parameters"
    }
    assert set(told) == set(OPERATIONS)
    for operation in told.values():
        assert operation["security"] == [{"adminKey": []}]
        assert {"400", "401", "404", "503"} <= operation["responses"].keys()
    assert document["components"]["securitySchemes"]["adminKey"]["scheme"] == "bearer"
