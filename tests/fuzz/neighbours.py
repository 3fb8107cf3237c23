"""Good clients that post meanwhile: each answer must be exact, and every message be there."""

import itertools
import math
import threading
import time
from types import TracebackType
from typing import Self

import httpx

from tests.contract.client import CAPTURE, EXACT, unique
from tests.report import Report
from tests.stack import Stack

MESSAGES = 2
PAUSE_SECONDS = 0.01
ROW_SECONDS = 60


class Neighbours:
    """A thread that posts captures one after the other, on connections of its own.

    Attributes:
        posted: how many captures were answered exactly.
        seconds: how long each answer took.

    """

    def __init__(self, stack: Stack, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._stack = stack
        self._pause_seconds = pause_seconds
        self._prefix = unique("neighbour")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._post_until_stopped)
        self._fault = ""
        self.posted = 0
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _post_until_stopped(self) -> None:
        authorization = {"Authorization": f"Bearer {self._stack.state['api_key']}"}
        with httpx.Client(
            base_url=self._stack.gateway_url, headers={**authorization, **EXACT}, timeout=60
        ) as client:
            for number in itertools.count():
                begun = time.monotonic()
                try:
                    answer = client.post(CAPTURE, json=self._capture(number))
                except httpx.HTTPError as error:
                    self._fault = f"capture {number}: {error!r}"
                    return
                self.seconds.append(time.monotonic() - begun)
                found = answer.json()
                if (found.get("messagesStored"), found.get("warnings")) != (MESSAGES, []):
                    self._fault = f"capture {number}: {answer.status_code} {answer.text}"
                    return
                self.posted += 1
                if self._stop.wait(self._pause_seconds):
                    return

    def _capture(self, number: int) -> dict[str, object]:
        messages = [{"id": f"m{at}", "role": "user", "content": "hi"} for at in range(MESSAGES)]
        return {"conversationId": f"{self._prefix}-{number}", "messages": messages}

    def percentile(self, share: float) -> float:
        """Return the answer time in seconds that this share of the answers kept."""
        return sorted(self.seconds)[math.ceil(share * len(self.seconds)) - 1]

    def assert_all_is_there(self, report: Report, what: str) -> None:
        """Assert that each answer was exact, and that each message is in ClickHouse, once."""
        query = (
            "SELECT count() AS rows FROM openbat.messages "
            f"WHERE startsWith(external_conversation_id, '{self._prefix}-')"
        )
        expected = [{"rows": MESSAGES * self.posted}]
        found = self._stack.wait_sql(query, expected, ROW_SECONDS)
        holds = not self._fault and found == expected
        report.add(
            f"{what}: messages of good neighbours in ClickHouse",
            found[0]["rows"],
            bound=f"{MESSAGES * self.posted}, each answered exactly",
            holds=holds,
        )
        assert not self._fault
        assert self.posted
        assert found == expected
