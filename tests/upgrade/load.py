"""A steady load that knows what each answer must be.

Each client posts the captures of its own conversations one after another, new ones and repeats,
now to one gateway and now to the next. So it knows how many messages of each are new.
"""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from gateway.capture import PENDING

CLIENTS = 4
CONVERSATIONS = 10
"""Per client."""

PACE_SECONDS = 0.2
"""Between two captures of a client."""

PREFER = "wait=8"
"""Long enough for a worker's restart, and shorter than a gateway waits for its last answers."""

PROGRESS_SECONDS = 60
RETRIES = 100


class Capture(NamedTuple):
    """One capture, as it is posted each time."""

    body: dict[str, Any]
    headers: dict[str, str]


class Conversation:
    """A conversation as it must be stored.

    Attributes:
        contents: of its messages, in the order in which they were first posted.
        plan: of its user, as it was last posted.
        custom: its custom fields, as they were last posted.
        captures: all that were posted.

    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.contents: list[str] = []
        self.plan = ""
        self.custom: dict[str, int] = {}
        self.captures: list[Capture] = []

    def next_capture(self) -> Capture:
        """Return one with two new messages: with short ids, with long ones, or with a key.

        Where messages have ids, it also repeats the newest one before it that has one.
        """
        turn = len(self.captures)
        first = 2 * turn
        kind = turn % 3
        back = {0: 3, 1: 1}.get(kind)
        repeated = [first - back] if back and turn else []
        numbers = [*repeated, first, first + 1]
        messages = [
            {"role": "user", "content": f"{self.name} {number}"} | self._id(number)
            for number in numbers
        ]
        body = {
            "conversationId": self.name,
            "messages": messages,
            "user": {"id": self.name, "plan": f"plan-{turn}"},
            "custom": {"turn": turn, f"turn{kind}": turn},
        }
        headers = {"Idempotency-Key": f"{self.name} {turn}"} if kind == 2 else {}
        capture = Capture(body, headers)
        self.captures.append(capture)
        return capture

    def _id(self, number: int) -> dict[str, str]:
        """Return a message's id, none where its capture has a key instead."""
        kind = number // 2 % 3
        if kind == 2:
            return {}
        return {"id": f"{number}" if kind == 0 else f"{number}-{'long' * 10}"}

    def take(self, capture: Capture) -> int:
        """Return how many of a capture's messages are new now that it is posted."""
        contents = [message["content"] for message in capture.body["messages"]]
        new = [content for content in contents if content not in self.contents]
        self.contents += new
        self.plan = capture.body["user"]["plan"]
        self.custom |= capture.body["custom"]
        return len(new)


class Load:
    """Clients that post until they are told to stop.

    Attributes:
        answers: how many captures each gateway answered exactly.
        stored: how many messages were new, by these answers.
        unknown: how many were new by answers that can't be exact: provisional ones, and those
            that came after one that was lost.

    """

    def __init__(self, gateways: Sequence[str], key: str) -> None:
        self.answers: Counter[str] = Counter()
        self.stored = 0
        self.unknown = 0
        self.conversations = [
            [Conversation(f"client-{client} {at}") for at in range(CONVERSATIONS)]
            for client in range(CLIENTS)
        ]
        self._gateways = gateways
        self._key = key
        self._stop = threading.Event()
        self._answered = threading.Condition()
        self._running: list[Future[None]] = []

    @property
    def all_conversations(self) -> list[Conversation]:
        return [found for own in self.conversations for found in own]

    @property
    def messages(self) -> int:
        return sum(len(found.contents) for found in self.all_conversations)

    @contextmanager
    def posting(self) -> Iterator[None]:
        """Post new captures and repeats, at a steady pace."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            self._running = [
                clients.submit(self._post_on, at, own) for at, own in enumerate(self.conversations)
            ]
            try:
                yield
            finally:
                self._stop.set()
            for client in self._running:
                client.result()

    def wait_answers(self, count: int) -> None:
        """Return when every gateway has answered so many more captures. Raises AssertionError."""
        wanted = {url: self.answers[url] + count for url in self._gateways}

        def reached() -> bool:
            for client in self._running:
                if client.done():
                    client.result()
            return all(self.answers[url] >= number for url, number in wanted.items())

        with self._answered:
            assert self._answered.wait_for(reached, PROGRESS_SECONDS), self.answers

    def post_again(self) -> int:
        """Post every capture once more; return how many that were. Each must bring nothing new."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            return sum(clients.map(self._repeat, self.conversations))

    def post_more(self) -> None:
        """Post one more capture to every conversation."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            for done in clients.map(self._add, self.conversations):
                assert done

    def _post_on(self, client: int, own: list[Conversation]) -> None:
        dice = random.Random(client)  # noqa: S311
        try:
            with self._http() as http:
                urls = itertools.cycle(self._gateways)
                for conversation in itertools.cycle(own):
                    self._post(http, urls, conversation, conversation.next_capture())
                    if dice.random() < 0.5:
                        before = dice.choice(own[: own.index(conversation) + 1])
                        self._post(http, urls, before, dice.choice(before.captures))
                    if self._stop.wait(PACE_SECONDS):
                        return
        finally:
            with self._answered:
                self._answered.notify_all()

    def _repeat(self, own: list[Conversation]) -> int:
        with self._http() as http:
            urls = itertools.cycle(self._gateways)
            captures = [(found, capture) for found in own for capture in found.captures]
            for conversation, capture in captures:
                self._post(http, urls, conversation, capture)
            return len(captures)

    def _add(self, own: list[Conversation]) -> int:
        with self._http() as http:
            urls = itertools.cycle(self._gateways)
            for conversation in own:
                self._post(http, urls, conversation, conversation.next_capture())
            return len(own)

    def _http(self) -> httpx.Client:
        # No connection is kept: one that the gateway closes is not sent into.
        return httpx.Client(
            headers={"Authorization": f"Bearer {self._key}", "Prefer": PREFER},
            timeout=30,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def _post(
        self,
        http: httpx.Client,
        urls: Iterator[str],
        conversation: Conversation,
        capture: Capture,
    ) -> None:
        """Post until there is an answer; check it."""
        new = conversation.take(capture)
        sure = True
        for _ in range(RETRIES):
            url = next(urls)
            try:
                answer = http.post(
                    f"{url}/api/v1/capture", json=capture.body, headers=capture.headers
                )
            except httpx.ConnectError:
                continue
            except httpx.TransportError:
                sure = False
                continue
            if answer.status_code != 503:
                break
            sure &= answer.json()["error"]["code"] == "starting"
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["warnings"] in ([], [PENDING])
        exact = sure and not found["warnings"]
        assert not exact or found["messagesStored"] == new, (capture, found)
        with self._answered:
            if exact:
                self.answers[url] += 1
                self.stored += new
                self._answered.notify_all()
            else:
                self.unknown += new
