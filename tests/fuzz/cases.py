"""Counts cases, says now and then how far it is, and tells how a finding is kept."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

from tests.fuzz import corpus

PROGRESS_SECONDS = 20


class Cases:
    """The cases of a run, by target."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._told = time.monotonic()

    @property
    def total(self) -> int:
        return self._counts.total()

    def count(self, target: str) -> int:
        return self._counts[target]

    def add(self, target: str) -> None:
        """Count a case."""
        self._counts[target] += 1
        now = time.monotonic()
        if now > self._told + PROGRESS_SECONDS:
            self._told = now
            print(f"{target}: {self._counts[target]} cases, {self.total} in all", flush=True)  # noqa: T201

    @contextlib.contextmanager
    def case(self, target: str, data: bytes) -> Iterator[None]:
        """Count a case; where it fails, say which line the corpus should get."""
        self.add(target)
        try:
            yield
        except Exception as error:
            error.add_note(f"{corpus.path_of(target)} should get: {corpus.line(data)}")
            raise
