"""A chatbot's life over HTTP, on the real stack: made, used, changed, given a new key, deleted."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from openbat.kafka import read_registry
from tests.stack import Stack, local_stack, wait_until

ADMIN = "secret-secret-secret"
CAPTURE, CHATBOTS = "/api/v1/capture", "/api/v1/chatbots"


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a stack whose one gateway has an admin key."""
    data_dir: Path = tmp_path_factory.mktemp("admin")
    with local_stack(data_dir, OPENBAT_ADMIN_KEY=ADMIN) as running:
        yield running


@pytest.fixture
def admin(ruled: Stack) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with httpx.Client(base_url=ruled.gateway_url, headers=headers, timeout=60) as client:
        yield client


def capture(client: httpx.Client, key: str, custom: dict[str, Any] | None = None) -> httpx.Response:
    body = {
        "conversationId": uuid.uuid4().hex,
        "messages": [{"id": "m", "role": "user", "content": "hello"}],
        "custom": custom or {},
    }
    return client.post(CAPTURE, json=body, headers={"Authorization": f"Bearer {key}"})


def test_a_chatbots_life(ruled: Stack, admin: httpx.Client) -> None:
    made = admin.post(CHATBOTS, json={"name": "shop"})
    assert made.status_code == 201, made.text
    key, chatbot = made.json()["apiKey"], made.json()["chatbot"]
    one = f"{CHATBOTS}/{chatbot['id']}"
    stored = capture(admin, key)
    assert (stored.status_code, stored.json()["messagesStored"]) == (200, 1)
    assert stored.json()["analysisQueued"] is True

    assert ruled.openbat("chatbots", "set", "shop", "rate-limit=600/minute").returncode == 0
    off = dict.fromkeys(chatbot["settings"]["analysis"], False)
    patch = {"name": "store", "settings": {"analysis": off, "remember_days": 30}}
    changed = admin.patch(one, json=patch)
    assert changed.status_code == 200, changed.text
    assert changed.json()["chatbot"]["name"] == "store"
    settings = changed.json()["chatbot"]["settings"]
    assert settings == chatbot["settings"] | {
        "rate_limit": "600/minute",
        "analysis": off,
        "remember_days": 30,
    }
    assert capture(admin, key).json()["analysisQueued"] is False
    shown = ruled.openbat("chatbots", "show", "store").stdout
    assert "600/minute" in shown
    assert f"{'remember-ids':<14} 30" in shown

    custom = {"plan": "pro", "seats": "3", "trial": True}
    unknown = [f"Custom field '{name}' not in schema" for name in custom]
    assert sorted(capture(admin, key, custom).json()["warnings"]) == unknown
    patch = {"settings": {"custom_fields": {"plan": "string", "seats": "number"}}}
    changed = admin.patch(one, json=patch)
    assert (changed.status_code, changed.json()["chatbot"]["settings"]) == (
        200,
        settings | patch["settings"],
    )
    wrong = "Custom field 'seats' expected number, got string"
    assert sorted(capture(admin, key, custom).json()["warnings"]) == [wrong, unknown[2]]
    assert ruled.openbat("chatbots", "set-schema", "store", "trial=boolean").returncode == 0
    # What changes nothing answers with what the log has, this gateway's own or not.
    fields = admin.patch(one, json={}).json()["chatbot"]["settings"]["custom_fields"]
    assert fields == {"plan": "string", "seats": "number", "trial": "boolean"}
    assert admin.patch(one, json={"settings": {"custom_fields": None}}).status_code == 200
    assert sorted(capture(admin, key, custom).json()["warnings"]) == unknown

    new = admin.post(f"{one}/rotate-key").json()["apiKey"]
    assert capture(admin, key).status_code == 401
    assert capture(admin, new).status_code == 200

    deleted = admin.delete(one)
    assert (deleted.status_code, deleted.json()["chatbot"]["state"]) == (200, "archived")
    refused = capture(admin, new)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "chatbot_archived")
    rows = [{"rows": 6}]
    query = f"SELECT count() AS rows FROM openbat.messages WHERE chatbot_id = '{chatbot['id']}'"
    assert ruled.wait_sql(query, rows) == rows


def listed(ruled: Stack) -> dict[str, str]:
    """Return the state of each chatbot as the command line lists it, by name."""
    said = json.loads(ruled.openbat("chatbots", "list", "--json").stdout)
    return {chatbot["name"]: chatbot["state"] for chatbot in said["chatbots"]}


def test_a_chatbot_is_pending_until_its_first_capture(ruled: Stack, admin: httpx.Client) -> None:
    names = ("used", "unused", "short-lived")
    made = {name: admin.post(CHATBOTS, json={"name": name}).json() for name in names}
    assert {one["chatbot"]["state"] for one in made.values()} == {"pending"}
    one, gone = (f"{CHATBOTS}/{made[name]['chatbot']['id']}" for name in ("used", "short-lived"))

    def state() -> str:
        return str(admin.get(one).json()["chatbot"]["state"])

    for name in ("used", "short-lived"):
        assert capture(admin, made[name]["apiKey"]).status_code == 200
    # It is archived before its first capture is written.
    assert admin.delete(gone).json()["chatbot"]["state"] == "archived"
    assert capture(admin, made["used"]["apiKey"]).status_code == 200
    wait_until(lambda: state() == "active", 30, "the first capture's note")
    found = listed(ruled)
    assert {name: found[name] for name in names} == {
        "used": "active",
        "unused": "pending",
        "short-lived": "archived",
    }
    assert admin.patch(one, json={"settings": {"remember_days": 30}}).status_code == 200
    assert state() == "active"
    assert capture(admin, made["used"]["apiKey"]).status_code == 200

    known = asyncio.run(read_registry(ruled.connection))
    short_lived = known.chatbot(uuid.UUID(made["short-lived"]["chatbot"]["id"]).bytes)
    assert short_lived is not None
    assert (short_lived.state, short_lived.first_capture_at is None) == ("archived", False)
    assert capture(admin, made["short-lived"]["apiKey"]).status_code == 403


def test_neither_key_does_what_the_other_one_does(ruled: Stack, admin: httpx.Client) -> None:
    demo = {"Authorization": f"Bearer {ruled.state['api_key']}"}
    assert admin.get(CHATBOTS, headers=demo).status_code == 401
    assert capture(admin, ADMIN).status_code == 401
    assert admin.get(CHATBOTS).status_code == 200
    for log in (ruled.data_dir / "logs").iterdir():
        assert ADMIN not in log.read_text(errors="replace")


async def test_writers_side_by_side_lose_nothing(ruled: Stack) -> None:
    """The admin API and the command line change one registry at the same time.

    They fence each other out and try again; one that is fenced out too often says that it failed.
    """
    headers = {"Authorization": f"Bearer {ADMIN}"}
    names = [f"fleet {number}" for number in range(8)]
    async with httpx.AsyncClient(base_url=ruled.gateway_url, headers=headers, timeout=60) as client:
        command = asyncio.create_task(
            asyncio.to_thread(ruled.openbat, "chatbots", "create", "by command", check=False)
        )
        posts = [client.post(CHATBOTS, json={"name": name}) for name in names]
        statuses = [answer.status_code for answer in await asyncio.gather(*posts)]
        by_command = await command
    assert set(statuses) <= {201, 503}
    assert 201 in statuses
    made = {name for name, status in zip(names, statuses, strict=True) if status == 201}
    made |= {"by command"} if by_command.returncode == 0 else set()
    listed = await asyncio.to_thread(ruled.openbat, "chatbots", "list")
    assert made <= {line.partition("  ")[0] for line in listed.stdout.splitlines()}
