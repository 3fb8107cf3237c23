"""A new key, an archived chatbot: on every gateway within a second."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator

import httpx

from tests.contract.client import CAPTURE, Bot, assert_error, assert_ok, body, unique
from tests.stack import CONTAINERS, Stack, kind

CONNECTIONS = 24
KEY = re.compile("ob_live_[0-9a-f]{32}")


def many_connections(stack: Stack) -> httpx.AsyncClient:
    """Return a client that opens as many connections as reach both gateways."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return httpx.AsyncClient(base_url=stack.gateway_url, timeout=30, limits=limits)


async def answers(client: httpx.AsyncClient, key: str) -> list[httpx.Response]:
    headers = {"Authorization": f"Bearer {key}"}
    return await asyncio.gather(
        *(client.post(CAPTURE, json=body(), headers=headers) for _ in range(CONNECTIONS))
    )


async def within_a_second(
    client: httpx.AsyncClient, key: str, expected: int
) -> list[httpx.Response]:
    """Return the answers once they all have the status; what began after a second counts."""
    end = time.monotonic() + 1
    while True:
        last = time.monotonic() >= end
        found = await answers(client, key)
        if last or {answer.status_code for answer in found} == {expected}:
            assert {answer.status_code for answer in found} == {expected}
            return found


async def test_a_new_key_is_good_and_the_old_one_is_not(stack: Stack, bot: Bot) -> None:
    old = bot.key
    assert KEY.fullmatch(old)
    async with many_connections(stack) as client:
        await within_a_second(client, old, 200)
        new = (await asyncio.to_thread(bot.openbat, "rotate-key")).strip()
        assert KEY.fullmatch(new)
        assert new != old
        for refused in await within_a_second(client, old, 401):
            assert_error(refused, 401)
            assert refused.headers["www-authenticate"].startswith("Bearer")
        await within_a_second(client, new, 200)
        await within_a_second(client, old, 401)


@contextlib.contextmanager
def connected(stack: Stack, pid: int, key: str) -> Iterator[httpx.Client]:
    """Yield a client whose one connection is to this gateway: the others can't take it."""
    others = [other for other in stack.pids("gateway") if other != pid]
    limits = httpx.Limits(max_connections=1)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=stack.gateway_url, headers=headers, timeout=30, limits=limits
    ) as client:
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            assert client.post(CAPTURE, json=body()).status_code == 200
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
        yield client


def test_a_revoked_key_is_refused_by_each_gateway_within_a_second(stack: Stack) -> None:
    made = Bot(stack, unique("revoked"))
    # In containers gateways share no port, and the stack's URL is the first one's.
    gateways = stack.pids("gateway")[: 1 if kind() == CONTAINERS else 2]
    with contextlib.ExitStack() as exits:
        exits.callback(made.close)
        clients = [exits.enter_context(connected(stack, pid, made.key)) for pid in gateways]
        made.openbat("rotate-key")
        end = time.monotonic() + 1
        for client in clients:
            status = client.post(CAPTURE, json=body()).status_code
            while status != 401 and time.monotonic() < end:
                status = client.post(CAPTURE, json=body()).status_code
            assert status == 401


async def test_an_archived_chatbot_refuses_everywhere(stack: Stack) -> None:
    made = await asyncio.to_thread(Bot, stack, unique("archived"))
    made.close()
    async with many_connections(stack) as client:
        await within_a_second(client, made.key, 200)
        await asyncio.to_thread(made.openbat, "archive", "--yes")
        for refused in await within_a_second(client, made.key, 403):
            assert_error(refused, 403, code="chatbot_archived")


def test_a_rotated_chatbot_is_the_same_chatbot(stack: Stack) -> None:
    """The conversation, its id and what was seen in it stay."""
    made = Bot(stack, unique("rotated"))
    capture = body({"id": "a", "role": "user", "content": ""})
    with contextlib.closing(made):
        before = assert_ok(made.post(capture), stored=1)
        made.use(made.openbat("rotate-key").strip())
        answer = made.post(capture)
        while answer.status_code == 401:
            answer = made.post(capture)
        after = assert_ok(answer, stored=0)
    assert after["conversationId"] == before["conversationId"]
