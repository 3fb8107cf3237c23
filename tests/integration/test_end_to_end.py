"""From the socket to the row, on the real stack, counted."""

import asyncio
import time
import uuid

import httpx

from tests.stack import Stack


def message(number: int) -> dict[str, str]:
    role = "assistant" if number % 2 else "user"
    return {"id": f"m{number}", "role": role, "content": f"message {number}"}


def test_a_capture_is_a_row_within_two_seconds(stack: Stack, demo: httpx.Client) -> None:
    body = {"conversationId": "soon", "messages": [message(0), message(1)]}
    answer = demo.post("/api/v1/capture", json=body)
    answered = time.monotonic()
    assert answer.status_code == 200
    assert answer.json()["messagesStored"] == 2
    expected = [
        {"role": "user", "content": "message 0"},
        {"role": "assistant", "content": "message 1"},
    ]
    query = (
        "SELECT role, content FROM openbat.messages "
        "WHERE external_conversation_id = 'soon' ORDER BY position"
    )
    assert stack.wait_sql(query, expected, seconds=2) == expected
    assert time.monotonic() - answered < 2.5


async def test_parallel_repeats_are_counted_once(stack: Stack) -> None:
    """The same captures, posted to two gateways at once by many clients."""
    conversations, repeats = 40, 5
    headers = {"Authorization": f"Bearer {stack.state['api_key']}"}
    run = uuid.uuid4().hex[:8]
    async with httpx.AsyncClient(base_url=stack.gateway_url, headers=headers, timeout=60) as client:

        async def post(conversation: int) -> int:
            body = {
                "conversationId": f"parallel-{run}-{conversation}",
                "messages": [message(number) for number in range(7)],
            }
            answer = await client.post("/api/v1/capture", json=body, headers={"Prefer": "wait=30"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["warnings"] == []
            return int(answer.json()["messagesStored"])

        posts = [post(conversation) for conversation in range(conversations)] * 1
        posts += [
            post(conversation) for _ in range(repeats - 1) for conversation in range(conversations)
        ]
        stored = await asyncio.gather(*posts)
    assert sum(stored) == conversations * 7
    query = (
        "SELECT count() AS rows, uniqExact(conversation_id, message_id) AS ids "
        f"FROM openbat.messages WHERE external_conversation_id LIKE 'parallel-{run}-%'"
    )
    expected = [{"rows": conversations * 7, "ids": conversations * 7}]
    found = await asyncio.to_thread(stack.wait_sql, query, expected)
    assert found == expected
