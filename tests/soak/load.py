"""Clients that post as fast as they are answered, in a process of its own.

`python -m tests.soak.load URL KEY SECONDS CLIENTS PREFIX` prints one line of JSON at the end.
"""

import asyncio
import itertools
import random
import sys
import time
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

WORDS = "please help me to change my plan before the end of the month".split()  # noqa: SIM905
REPEATED = 0.1
RETRY_SECONDS = 0.2


class Counts(Struct):
    """What became of the captures.

    `wrong` counts exact answers with another count than the contract promises; a capture that was
    sent again after it was not confirmed is not looked at.
    """

    captures: int = 0
    messages: int = 0
    provisional: int = 0
    refused: int = 0
    wrong: int = 0
    seconds: float = 0.0
    p50_milliseconds: float = 0.0
    p99_milliseconds: float = 0.0


class Load:
    """Closed-loop clients over fresh conversations; some captures are sent twice."""

    def __init__(self, http: aiohttp.ClientSession, url: str, seconds: float, prefix: str) -> None:
        self._http = http
        self._url = f"{url}/api/v1/capture"
        self._end = time.monotonic() + seconds
        self._prefix = prefix
        self._numbers = itertools.count()
        self._dice = random.Random(11)  # noqa: S311
        self._waits: list[float] = []
        self.counts = Counts()

    async def client(self) -> None:
        counts = self.counts
        while time.monotonic() < self._end:
            ids = self._dice.randint(1, 4)
            body = self._body(f"{self._prefix}-{next(self._numbers)}", ids)
            await self._post(body, ids)
            counts.messages += ids
            if self._dice.random() < REPEATED:
                await self._post(body, 0)

    def _body(self, conversation: str, ids: int) -> bytes:
        messages = [
            {
                "id": f"m{number}",
                "role": "assistant" if number % 2 else "user",
                "content": " ".join(self._dice.choices(WORDS, k=12)),
            }
            for number in range(ids)
        ]
        return msgspec.json.encode({"conversationId": conversation, "messages": messages})

    async def _post(self, body: bytes, expected: int) -> None:
        """Post a capture until it is taken."""
        again = False
        while True:
            begun = time.monotonic()
            status, answer = await self._once(body)
            if status == 200:
                break
            again = True
            self.counts.refused += 1
            await asyncio.sleep(RETRY_SECONDS)
        self._waits.append(time.monotonic() - begun)
        self.counts.captures += 1
        if answer["warnings"]:
            self.counts.provisional += 1
        elif not again and answer["messagesStored"] != expected:
            self.counts.wrong += 1

    async def _once(self, body: bytes) -> tuple[int, Any]:
        try:
            async with self._http.post(self._url, data=body) as answer:
                content = await answer.read()
                return answer.status, msgspec.json.decode(content)
        except (aiohttp.ClientError, TimeoutError):
            return 0, None

    def finish(self, seconds: float) -> Counts:
        self._waits.sort()
        self.counts.seconds = seconds
        self.counts.p50_milliseconds = self._waits[len(self._waits) // 2] * 1000
        self.counts.p99_milliseconds = self._waits[len(self._waits) * 99 // 100] * 1000
        return self.counts


async def run(url: str, key: str, seconds: float, clients: int, prefix: str) -> Counts:
    """Post for some seconds; return what was counted."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=clients)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as http:
        load = Load(http, url, seconds, prefix)
        begun = time.monotonic()
        await asyncio.gather(*(load.client() for _ in range(clients)))
        return load.finish(time.monotonic() - begun)


if __name__ == "__main__":
    url, key, seconds, clients, prefix = sys.argv[1:]
    counted = asyncio.run(run(url, key, float(seconds), int(clients), prefix))
    sys.stdout.write(msgspec.json.encode(counted).decode() + "\n")
