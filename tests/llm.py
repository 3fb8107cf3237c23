"""A language model's endpoint on this machine: it judges by simple rules, and fails as it is told.

It speaks OpenAI's chat completions, over HTTP, in a thread of its own.
"""

import asyncio
import json
import re
import threading
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from msgspec import Struct

HOST = "127.0.0.1"
PATH = "/v1/chat/completions"
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}
"""Of every answer."""

Kind = Literal[
    "status", "slow", "cut", "no-completion", "malformed", "missing", "extra", "twice", "refusal",
    "unfinished", "label", "flag", "score", "kinds",
]  # fmt: skip


class Fault(Struct, frozen=True):
    """What goes wrong with one request.

    Attributes:
        kind: `status` answers `status` with `headers` and `message`; `slow` answers right, but a
            byte every `seconds`; `cut` breaks the connection; the others spoil the answer, those
            of an item its first.

    """

    kind: Kind
    status: int = 500
    headers: dict[str, str] = {}
    message: str = "made up"
    seconds: float = 0.02


class Asked(Struct, frozen=True):
    """One request that came: its headers, its JSON, and the items in it."""

    headers: dict[str, str]
    body: dict[str, Any]
    items: list[dict[str, Any]]

    @property
    def texts(self) -> list[str]:
        return [text_of(item) for item in self.items]


class LlmEndpoint:
    """A context manager; all may be set and read from any thread while it runs.

    Attributes:
        url: what a client is given as its base.
        latency_seconds: from a request to its answer.
        is_gullible: whether it obeys a text that says `everything is LABEL`, wherever that stands
            in the request: it then judges all items' sentiment so.
        tells_usage: whether answers tell what they used.
        formats: the types of `response_format` that it knows; others are refused with 400.
        faults: one is taken by each request, the first first.
        always: what every request suffers that takes none of `faults`; None for nothing.
        fault_of: says for a request's texts what it suffers, before all else.
        asked: the requests that came, in order.
        highest: how many were under way at once, at most.

    """

    def __init__(self) -> None:
        self.url = ""
        self.latency_seconds = 0.0
        self.is_gullible = False
        self.tells_usage = True
        self.formats = {"json_schema", "json_object", "text"}
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.fault_of: Callable[[list[str]], Fault | None] = lambda _: None
        self.asked: list[Asked] = []
        self.highest = 0
        self._under_way = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def times_asked(self) -> Counter[str]:
        """Return how many requests had each text to judge."""
        return Counter(text for asked in self.asked for text in asked.texts)

    async def _start(self) -> None:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post(PATH, self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}/v1"

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self._under_way += 1
        self.highest = max(self.highest, self._under_way)
        try:
            body = await request.json()
            items = json.loads(body["messages"][1]["content"])["items"]
            asked = Asked(dict(request.headers), body, items)
            self.asked.append(asked)
            await asyncio.sleep(self.latency_seconds)
            return await self._answer(request, asked)
        finally:
            self._under_way -= 1

    async def _answer(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        fault = self.fault_of(asked.texts)
        if fault is None:
            fault = self.faults.popleft() if self.faults else self.always
        form = asked.body.get("response_format", {"type": "text"})["type"]
        if form not in self.formats:
            return _error(400, f"this response_format is not available: {form}", {})
        if fault is None:
            return self._completion(self._judge(asked))
        if fault.kind == "status":
            return _error(fault.status, fault.message, fault.headers)
        if fault.kind == "cut":
            assert request.transport is not None
            request.transport.abort()
        if fault.kind == "no-completion":
            return web.Response(text="<html>Sign in</html>", content_type="text/html")
        if fault.kind == "slow":
            return await _trickle(request, self._completion(self._judge(asked)), fault.seconds)
        if fault.kind == "refusal":
            return self._completion(None, refusal="I can't help with that.")
        if fault.kind == "unfinished":
            return self._completion(self._judge(asked), finish_reason="length")
        return self._completion(_spoiled(self._judge(asked), fault.kind))

    def _completion(
        self, content: str | None, *, refusal: str | None = None, finish_reason: str = "stop"
    ) -> web.Response:
        message = {"role": "assistant", "content": content, "refusal": refusal}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        completion = {"id": "x", "object": "chat.completion", "choices": [choice]}
        return web.json_response(completion | ({"usage": USAGE} if self.tells_usage else {}))

    def _judge(self, asked: Asked) -> str:
        system, user = (message["content"] for message in asked.body["messages"])
        kinds = json.loads(user)["kinds"]
        order = re.search(r"everything is (\w+)", user) if self.is_gullible else None
        judged = [judge(text_of(item), kinds, system) | {"id": item["id"]} for item in asked.items]
        for item in judged if order and "sentiment" in kinds else []:
            item["sentiment"]["label"] = order[1] if order else ""
        return json.dumps({"items": judged})


def text_of(item: dict[str, Any]) -> str:
    """Return what an item is about: its message, or the conversation's texts."""
    if "message" in item:
        return str(item["message"]["content"])
    return "\n".join(turn["content"] for turn in item["conversation"])


def judge(text: str, kinds: list[str], system: str) -> dict[str, Any]:
    """Judge a text by the words that it has; intents and flags are those named in it."""
    words = re.findall(r"[\w-]+", text.lower())
    feeling = ("great" in words) - ("awful" in words)
    answers: dict[str, Any] = {
        "sentiment": {
            "score": feeling * 0.8,
            "label": ["neutral", "positive", "negative"][feeling],
        },
        "intent": {"label": next((w for w in _listed(system, "Intents") if w in words), "none")},
        "topics": {"labels": sorted({word for word in words if len(word) > 7})[:3]},
        "flags": {"labels": [word for word in _listed(system, "Flags") if word in words]},
        "behaviour": {"label": "refusing" if "can't" in text else "helpful"},
        "resolution": {"label": "fully" if "thanks" in words else "unresolved"},
    }
    return {kind: {"reasoning": "by its words"} | answers[kind] for kind in kinds}


def _listed(system: str, name: str) -> list[str]:
    found = re.search(rf"^{name}: (\[.*\])$", system, re.MULTILINE)
    return list(json.loads(found[1])) if found else []


def _spoiled(answer: str, kind: str) -> str:
    if kind == "malformed":
        return answer[: len(answer) // 2]
    items = json.loads(answer)["items"]
    if kind == "missing":
        del items[0]
    elif kind == "extra":
        items.append(items[0] | {"id": "0123456789abcdef"})
    elif kind == "twice":
        items.append(items[0])
    elif kind == "label":
        items[0]["sentiment"]["label"] = "furious"
    elif kind == "flag":
        items[0]["flags"]["labels"] = ["made-up"]
    elif kind == "score":
        items[0]["sentiment"]["score"] = 1.5
    elif kind == "kinds":
        items[0]["resolution"] = {"label": "fully"}
    return json.dumps({"items": items})


def _error(status: int, message: str, headers: dict[str, str]) -> web.Response:
    error = {"message": message, "type": "made_up", "param": None, "code": None}
    return web.json_response({"error": error}, status=status, headers=headers)


async def _trickle(request: web.Request, whole: web.Response, seconds: float) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    assert isinstance(whole.body, bytes)
    for byte in whole.body:
        await response.write(bytes([byte]))
        await asyncio.sleep(seconds)
    return response
