"""The offline analyzer: rules and a lexicon, on this machine, for nothing."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from importlib.metadata import version

from analysis.offline.frames import LENGTH_BYTES, length_of, read_answers, subjects_frame
from analysis.protocol import Answer, Subject, UnavailableError
from schemas.analysis import KINDS

RULES = "1"
"""The version of the rules in this package: changes with any that may change a result."""
BATCH_SECONDS = 60.0
"""How long a batch may take: the longest texts take a tenth of it."""
_COMMAND = (sys.executable, "-P", "-m", "analysis.offline.process")


class OfflineAnalyzer:
    """Implements `analysis.protocol.Analyzer`, in a process of its own.

    A thread would share Python's lock with the event loop: the worker would use one core, and each
    of the two take longer. The process starts with the first batch, and again where it has died.
    """

    name = "offline"
    version = (
        f"{RULES}+vader-{version('nltk-vader-sentiment')}+snowball-{version('snowballstemmer')}"
    )
    kinds = frozenset(KINDS)
    paid = False
    batch_size = 1024

    def __init__(self) -> None:
        self._process: Process | None = None
        self._asking = asyncio.Lock()
        self._asked: set[asyncio.Task[bytes]] = set()

    async def analyze(self, subjects: Sequence[Subject]) -> Sequence[Answer]:
        """Return an answer for each subject, in their order.

        Raises:
            UnavailableError: the process died, or took too long.

        """
        asking = asyncio.create_task(self._ask(subjects_frame(subjects)))
        self._asked.add(asking)
        asking.add_done_callback(self._asked.discard)
        # Who gives up leaves no answer behind for the next one to take for its own.
        return read_answers(await asyncio.shield(asking))

    async def close(self) -> None:
        """End the process; what it was asked, and nobody waits for, is not answered."""
        for asking in self._asked:
            asking.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)
        await self._end()

    async def _ask(self, frame: bytes) -> bytes:
        async with self._asking:
            try:
                async with asyncio.timeout(BATCH_SECONDS):
                    return await self._exchange(frame)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                await self._end()
                raise UnavailableError(
                    f"the process that judges gave no answer: {type(error).__name__}"
                ) from error

    async def _exchange(self, frame: bytes) -> bytes:
        process = self._process
        if process is None:
            process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=PIPE, stdout=PIPE)
            self._process = process
        if process.stdin is None or process.stdout is None:
            raise BrokenPipeError
        process.stdin.write(frame)
        await process.stdin.drain()
        head = await process.stdout.readexactly(LENGTH_BYTES)
        return await process.stdout.readexactly(length_of(head))

    async def _end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.communicate()
            self._process = None
