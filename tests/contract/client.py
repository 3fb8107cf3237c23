"""What the contract tests share: a chatbot's client, request bodies, what answers look like."""

import contextlib
import copy
import http.client
import itertools
import json
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.stack import Stack

CAPTURE = "/api/v1/capture"
PROVISIONAL = "Deduplication pending: messagesStored is provisional"
EXACT = {"Prefer": "wait=30"}
LIMIT = 2**20
ROW_SECONDS = 10
ABSENT: Any = object()

_numbers = itertools.count()


def unique(prefix: str = "c") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}-{next(_numbers)}"


def message(**members: Any) -> dict[str, Any]:
    return {"role": "user", "content": "Hello", **members}


def body(*messages: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """Return a capture of a new conversation; ABSENT drops a member."""
    capture = {"conversationId": unique(), "messages": list(messages) or [message()], **members}
    return {name: value for name, value in capture.items() if value is not ABSENT}


FULL: dict[str, Any] = {
    "conversationId": "full",
    "messages": [
        {"id": "m0", "role": "user", "content": "Hi", "sentAt": "2026-01-02T03:04:05Z"},
        {"id": "m1", "role": "assistant", "content": "Hello", "sentAt": "2026-01-02T03:04:06.5Z"},
        {"id": "m2", "role": "system", "content": "", "sentAt": "2026-01-02T05:04:07+02:00"},
    ],
    "user": {
        "id": "u1",
        "name": "Ann",
        "email": "ann@example.com",
        "plan": "pro",
        "industry": "retail",
        "createdAt": "2024-05-06T07:08:09Z",
        "mrr": 12.5,
    },
    "organization": {
        "id": "o1",
        "name": "Acme",
        "plan": "team",
        "industry": "steel",
        "mrr": 250,
    },
    "session": {
        "id": "s1",
        "pageUrl": "https://example.com/a?b=c",
        "referrer": "https://example.org/",
        "device": "phone",
        "country": "NO",
    },
    "custom": {},
    "userId": "u0",
    "metadata": {},
}
"""Every field of a request."""


def with_value(path: str, value: Any) -> dict[str, Any]:
    """Return FULL as a new conversation, with another value at a path such as $.user.id."""
    capture: dict[str, Any] = {**copy.deepcopy(FULL), "conversationId": unique()}
    steps = [
        int(number) if number else name
        for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path.removeprefix("$"))
    ]
    inner: Any = capture
    for step in steps[:-1]:
        inner = inner[step]
    if value is ABSENT:
        del inner[steps[-1]]
    else:
        inner[steps[-1]] = value
    return capture


def table(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Run a test once for each value, as its argument `case`."""
    return pytest.mark.parametrize("case", list(cases.values()), ids=list(cases))


class Bot:
    """A chatbot, and a client that has its key and one connection to one gateway."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.name = name
        self.key = stack.make_chatbot(name)
        self.client = self.new_client()

    def use(self, key: str) -> None:
        """Go on with another key, on a new connection."""
        self.client.close()
        self.key = key
        self.client = self.new_client()

    def close(self) -> None:
        self.client.close()

    def new_client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.stack.gateway_url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=40,
            limits=httpx.Limits(max_connections=1),
        )

    def openbat(self, command: str, *arguments: str) -> str:
        return self.stack.openbat("chatbots", command, self.name, *arguments).stdout

    def id(self) -> str:
        lines = dict(line.split(maxsplit=1) for line in self.openbat("show").splitlines())
        return str(lines["id"])

    def post(self, capture: Any, **headers: str) -> httpx.Response:
        """Post a capture and wait for the exact count; headers are named with _ for -."""
        return self.client.post(CAPTURE, json=capture, headers=_headers({**EXACT, **headers}))

    def post_bytes(self, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
        headers = {"Content_Type": "application/json", **EXACT, **headers}
        return self.client.post(CAPTURE, content=content, headers=_headers(headers))

    def count(self, capture: Any, **headers: str) -> int:
        """Post a capture; return how many messages were new, exactly."""
        return int(assert_ok(self.post(capture, **headers))["messagesStored"])

    def assert_works(self) -> None:
        """Assert that a good capture works, on the same connection where it is open still."""
        capture = body(message(id="a"), message())
        assert_ok(self.post(capture), stored=2, warnings=[])

    def conversation(self, answer: httpx.Response, messages: int = 1) -> dict[str, Any]:
        """Return an answered capture's conversation once it has that many messages."""
        found = str(answer.json()["conversationId"])
        query = f"SELECT * FROM openbat.conversations WHERE conversation_id = '{found}'"
        end = time.monotonic() + ROW_SECONDS
        rows = self.stack.sql(query)
        while [row["message_count"] for row in rows] != [messages] and time.monotonic() < end:
            time.sleep(0.05)
            rows = self.stack.sql(query)
        assert [row["message_count"] for row in rows] == [messages]
        return rows[0]

    def messages(self, answer: httpx.Response, count: int) -> list[dict[str, Any]]:
        """Return an answered capture's conversation's messages once they are that many."""
        found = str(answer.json()["conversationId"])
        where = f"FROM openbat.messages WHERE conversation_id = '{found}'"
        expected = [{"rows": count}]
        assert self.stack.wait_sql(f"SELECT count() AS rows {where}", expected, ROW_SECONDS) == (
            expected
        )
        return self.stack.sql(f"SELECT * {where} ORDER BY position")


def _headers(named: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


def fields(text: str) -> Any:
    """Return what a column of JSON holds; empty text is no field."""
    return json.loads(text or "{}", parse_constant=pytest.fail)


def assert_ok(
    answer: httpx.Response, *, stored: int | None = None, warnings: list[str] | None = None
) -> dict[str, Any]:
    """Assert that a capture was answered with 200, in the contract's shape; return the body."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    found: dict[str, Any] = answer.json()
    assert found.keys() == {"ok", "conversationId", "messagesStored", "analysisQueued", "warnings"}
    assert found["ok"] is True
    assert str(uuid.UUID(found["conversationId"])) == found["conversationId"]
    assert type(found["messagesStored"]) is int
    assert type(found["analysisQueued"]) is bool
    assert all(isinstance(warning, str) for warning in found["warnings"])
    if stored is not None:
        assert found["messagesStored"] == stored
    if warnings is not None:
        assert sorted(found["warnings"]) == sorted(warnings)
    return found


def assert_error(
    answer: httpx.Response, status: int, path: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Assert that a request was refused with a status, in the contract's shape; return `error`."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    found = answer.json()
    assert found.keys() == {"ok", "error"}
    assert found["ok"] is False
    error: dict[str, Any] = found["error"]
    assert {"code", "message"} <= error.keys() <= {"code", "message", "path"}
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", error["code"]), error
    assert isinstance(error["message"], str)
    assert error["message"]
    if "path" in error:
        assert error["path"].startswith("$")
    if path is not None:
        assert error.get("path") == path, error
    if code is not None:
        assert error["code"] == code
    return error


class RawRequest:
    """A capture's head, sent by hand on a connection of its own; its body is the caller's."""

    def __init__(self, stack: Stack, key: str, **headers: str) -> None:
        url = httpx.URL(stack.gateway_url)
        self.socket = socket.create_connection((url.host, url.port or 80), timeout=20)
        lines = [f"POST {CAPTURE} HTTP/1.1", f"Host: {url.host}", "Content-Type: application/json"]
        lines += [f"Authorization: Bearer {key}"] if key else []
        lines += [f"{name}: {value}" for name, value in _headers(headers).items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def trickle(self) -> None:
        """Send one more byte of the body, where the other side listens still."""
        with contextlib.suppress(OSError):
            self.socket.sendall(b" ")

    def answer(self) -> httpx.Response:
        """Read the answer."""
        with contextlib.closing(self.socket), http.client.HTTPResponse(self.socket) as response:
            response.begin()
            content = response.read()
            return httpx.Response(response.status, headers=response.getheaders(), content=content)
