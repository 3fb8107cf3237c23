"""What is refused, with which status, and how the answer looks."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.contract.client import (
    CAPTURE,
    LIMIT,
    Bot,
    RawRequest,
    assert_error,
    assert_ok,
    body,
    table,
    unique,
)
from tests.stack import Stack, wait_until

BODY_SECONDS = 10
"""How long a body may take, by default."""

UNKNOWN_KEY = "ob_live_" + "0" * 32


@pytest.fixture(scope="module")
def anybody(stack: Stack) -> Iterator[httpx.Client]:
    """Return a client without a key."""
    with httpx.Client(base_url=stack.gateway_url, timeout=30) as client:
        yield client


def assert_unauthorized(answer: httpx.Response) -> None:
    assert_error(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@table(
    {
        "no header": {},
        "empty": {"Authorization": ""},
        "Bearer without key": {"Authorization": "Bearer"},
        "unknown key": {"Authorization": f"Bearer {UNKNOWN_KEY}"},
        "not one of our keys": {"Authorization": "Bearer sk-123"},
        "Basic": {"Authorization": "Basic dXNlcjpwYXNz"},
        "a key without Bearer": {"Authorization": UNKNOWN_KEY},
        "long": {"Authorization": "Bearer " + "x" * 5000},
        "very long": {"Authorization": "Bearer ob_live_" + "0" * 60_000},
        "digits that are no ASCII": {"Authorization": ("Bearer ob_live_" + "\u0663" * 32).encode()},
        "not ASCII": {"Authorization": "Bearer ob_live_é".encode()},
        "not UTF-8": {"Authorization": b"Bearer ob_live_\xff"},
        "another header": {"X-Api-Key": UNKNOWN_KEY},
    }
)
def test_no_key_is_401(anybody: httpx.Client, case: Any) -> None:
    assert_unauthorized(anybody.post(CAPTURE, json=body(), headers=case))


@table(
    {
        "key in capitals": lambda key: f"Bearer ob_live_{key[8:].upper()}g",
        "key cut": lambda key: f"Bearer {key[:-1]}",
        "key and more": lambda key: f"Bearer {key}0",
        "key's prefix": lambda key: f"Bearer {key[:14]}",
        "Basic with the key": lambda key: f"Basic {key}",
        "Token with the key": lambda key: f"Token {key}",
        "no scheme": lambda key: key,
        "two keys": lambda key: f"Bearer {key} {key}",
    }
)
def test_a_key_not_as_it_is_given_is_401(bot: Bot, case: Callable[[str], str]) -> None:
    assert_unauthorized(bot.post(body(), Authorization=case(bot.key)))


def test_a_key_in_the_query_is_401(bot: Bot, anybody: httpx.Client) -> None:
    assert_unauthorized(anybody.post(CAPTURE, params={"api_key": bot.key}, json=body()))


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "bEaReR ", "Bearer" + " " * 500])
def test_the_scheme_is_read_in_any_case_and_before_any_spaces(bot: Bot, scheme: str) -> None:
    assert_ok(bot.post(body(), Authorization=f"{scheme}{bot.key}"))


@table(
    {
        "malformed": (b"{", {}),
        "not UTF-8": (b"\xff", {}),
        "empty": (b"", {}),
        "over the limit": (b" " * (LIMIT + 1), {}),
        "another content type": (b"x", {"Content-Type": "text/plain"}),
        "another encoding": (b"x", {"Content-Encoding": "br"}),
        "not gzip": (b"x", {"Content-Encoding": "gzip"}),
    }
)
def test_401_is_decided_before_the_body(
    anybody: httpx.Client, case: tuple[bytes, dict[str, str]]
) -> None:
    content, headers = case
    headers = {"Content-Type": "application/json", **headers}
    assert_unauthorized(anybody.post(CAPTURE, content=content, headers=headers))


@table(
    {
        "length": {"Content_Length": "1000"},
        "length over the limit": {"Content_Length": str(100 * LIMIT)},
        "chunked": {"Transfer_Encoding": "chunked"},
    }
)
def test_401_waits_for_no_body(stack: Stack, case: dict[str, str]) -> None:
    started = time.monotonic()
    assert_unauthorized(RawRequest(stack, UNKNOWN_KEY, **case).answer())
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("value", ["Bearer ", "Bearer \t", " ", "\xa0"], ids=repr)
def test_a_key_of_spaces_is_401(stack: Stack, value: str) -> None:
    request = RawRequest(stack, "", Authorization=value, Content_Length="0")
    assert_unauthorized(request.answer())


def test_a_bad_key_spoils_no_connection(bot: Bot) -> None:
    for _ in range(3):
        assert_unauthorized(bot.post(body(), Authorization=f"Bearer {UNKNOWN_KEY}"))
        bot.assert_works()


@table(
    {
        "root": ("GET", "/"),
        "api": ("GET", "/api/v1"),
        "longer": ("POST", "/api/v1/capture/x"),
        "slash": ("POST", "/api/v1/capture/"),
        "another version": ("POST", "/api/v2/capture"),
        "capitals": ("POST", "/API/v1/capture"),
        "double slash": ("POST", "//api/v1/capture"),
        "not UTF-8": ("POST", "/api/v1/%ff"),
        "dots": ("GET", "/api/v1/%2e%2e/%2e%2e/etc/passwd"),
    }
)
def test_an_unknown_path_is_404(bot: Bot, stack: Stack, case: tuple[str, str]) -> None:
    method, path = case
    url = httpx.URL(stack.gateway_url).copy_with(raw_path=path.encode())
    assert_error(bot.client.request(method, url), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"])
def test_another_method_is_405(bot: Bot, method: str) -> None:
    answer = bot.client.request(method, CAPTURE)
    assert_error(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_head_is_405_without_a_body(bot: Bot) -> None:
    answer = bot.client.head(CAPTURE)
    assert (answer.status_code, answer.content) == (405, b"")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_what_is_only_read_takes_no_post(bot: Bot, path: str) -> None:
    answer = bot.client.post(path, json={})
    assert_error(answer, 405)
    assert "GET" in re.split(r",\s*", answer.headers["allow"])


def test_a_slow_body_is_408(bot: Bot, stack: Stack) -> None:
    """Neither silence nor a byte now and then holds a connection beyond the time."""
    started = time.monotonic()
    requests = [
        RawRequest(stack, bot.key, Content_Length="1000"),
        RawRequest(stack, bot.key, Content_Length="1000"),
        RawRequest(stack, bot.key, Transfer_Encoding="chunked"),
    ]
    while time.monotonic() < started + BODY_SECONDS - 1:
        requests[1].trickle()
        bot.assert_works()
        time.sleep(0.5)
    for request in requests:
        assert_error(request.answer(), 408)
        assert BODY_SECONDS - 1 < time.monotonic() - started < BODY_SECONDS + 5


@table(
    {
        "none": None,
        "text": "text/plain",
        "form": "application/x-www-form-urlencoded",
        "multipart": "multipart/form-data; boundary=x",
        "xml": "application/xml",
        "lines": "application/x-ndjson",
        "prefix": "application/jsonx",
        "no type": "json",
        "empty": "",
    }
)
def test_another_content_type_is_415(bot: Bot, case: str | None) -> None:
    request = bot.client.build_request("POST", CAPTURE, json=body())
    del request.headers["content-type"]
    if case is not None:
        request.headers["content-type"] = case
    assert_error(bot.client.send(request), 415)


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "Application/JSON",
        "application/json ; x=y",
    ],
)
def test_json_is_taken_however_it_is_written(bot: Bot, value: str) -> None:
    assert_ok(bot.post(body(), Content_Type=value), stored=1)


@pytest.mark.parametrize("value", ["br", "deflate", "compress", "x", "gzip, br", "zstd;q=1"])
def test_another_content_encoding_is_415(bot: Bot, value: str) -> None:
    assert_error(bot.post(body(), Content_Encoding=value), 415)


def test_two_content_encodings_in_two_headers_are_415(bot: Bot) -> None:
    headers = [(b"Content-Encoding", b"gzip"), (b"Content-Encoding", b"br")]
    assert_error(bot.client.post(CAPTURE, json=body(), headers=headers), 415)


def test_an_archived_chatbot_is_403(stack: Stack) -> None:
    made = Bot(stack, unique("archived"))
    with contextlib.closing(made):
        capture = body()
        answer = made.post(capture)
        assert_ok(answer, stored=1)
        made.openbat("archive", "--yes")
        wait_until(lambda: made.post(body()).status_code != 200, 1, "archived")
        assert_error(made.post(capture), 403, code="chatbot_archived")
        assert_unauthorized(made.post(capture, Authorization=f"Bearer {UNKNOWN_KEY}"))
        assert made.conversation(answer)["external_conversation_id"] == capture["conversationId"]


def test_over_the_rate_is_429(stack: Stack, bot: Bot) -> None:
    """One connection is one gateway; the new key is known there only after the rate is."""
    made = Bot(stack, unique("rate"))
    with contextlib.closing(made):
        made.openbat("set", "rate-limit=3/minute")
        made.use(made.openbat("rotate-key").strip())
        capture = body()
        answers = [made.post(capture)]
        while answers[0].status_code == 401:
            answers[0] = made.post(capture)
        answers += [made.post(capture) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        for refused in answers[3:]:
            assert_error(refused, 429)
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert "ratelimit" in refused.headers
        assert len(made.messages(answers[0], 3)) == 3
        bot.assert_works()
