"""Posts a file of conversations to the capture API, and counts what became of them."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import aiohttp
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from schemas import sizes
from schemas.capture import MAX_MESSAGES, CaptureAnswer, ErrorAnswer

CONCURRENCY = 64
WAIT_SECONDS = 30
GIVE_UP_SECONDS = 300
CONNECT_SECONDS = 5
MAX_LINE_BYTES = 32 * sizes.MIB
TIMEOUT_SECONDS = WAIT_SECONDS + 30
PENDING = "Deduplication pending"
"""How the warning of an answer begins whose count is provisional: see docs/clients.md."""
_GZIP = b"\x1f\x8b"


class ImportStoppedError(Exception):
    """Raised when going on makes no sense; says what to do."""


class Target(NamedTuple):
    """Where to post, and with which key."""

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Target({self.url})"


class Totals(Struct):
    """What was posted.

    Attributes:
        captures: that were taken.
        stored: messages that were new.
        duplicates: messages that were not.
        provisional: messages that are durable, of which nobody told in time whether they were new.
        failed: lines that were not wholly taken.

    """

    captures: int = 0
    stored: int = 0
    duplicates: int = 0
    provisional: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return (
            f"captures={self.captures} stored={self.stored} "
            f"duplicates={self.duplicates} provisional={self.provisional} failed={self.failed}"
        )

    def add(self, messages: int, answer: CaptureAnswer) -> None:
        """Count a capture of so many messages by its answer."""
        self.captures += 1
        if any(warning.startswith(PENDING) for warning in answer.warnings):
            self.provisional += messages
        else:
            self.stored += answer.messages_stored
            self.duplicates += messages - answer.messages_stored


class _RefusedError(Exception):
    """Raised for a line that sending again won't get taken."""


class _BusyError(Exception):
    """Raised for an answer after which the same capture is to be sent again."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


def cut(conversation: dict[str, Any], turn_by_turn: bool) -> Iterator[dict[str, Any]]:
    """Cut a conversation into captures.

    Of up to 100 messages each; or turn by turn: a user's message and what follows it, up to the
    next user's.
    """
    messages = conversation["messages"]
    capture: list[Any] = []
    for message in messages:
        begins = turn_by_turn and isinstance(message, dict) and message.get("role") == "user"
        if capture and (begins or len(capture) == MAX_MESSAGES):
            yield {**conversation, "messages": capture}
            capture = []
        capture.append(message)
    yield {**conversation, "messages": capture}


async def import_file(name: str, target: Target, turn_by_turn: bool) -> Totals:
    """Post a file's conversations; report each line that is at fault, and go on.

    A conversation's captures are posted in order, several conversations at once.

    Raises:
        ImportStoppedError: the file can't be read, or the key is refused.

    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    headers = {
        "Authorization": f"Bearer {target.api_key}",
        "Content-Type": "application/json",
        "Prefer": f"wait={WAIT_SECONDS}",
    }
    url = target.url.rstrip("/")
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as http:
        await _check_gateway(http, url)
        importer = _Importer(http, f"{url}/api/v1/capture", turn_by_turn)
        with _open(name) as lines:
            await importer.run(lines)
        return importer.totals


class _Importer:
    def __init__(self, http: aiohttp.ClientSession, url: str, turn_by_turn: bool) -> None:
        self._http = http
        self._url = url
        self._turn_by_turn = turn_by_turn
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.completed} lines, {task.fields[totals]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self.totals = Totals()

    async def run(self, lines: Iterator[bytes]) -> None:
        numbered = enumerate(lines, start=1)
        with self._progress:
            task = self._progress.add_task("import", total=None, totals=self.totals)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(CONCURRENCY):
                        group.create_task(self._take(numbered, task))
                # The command prints the totals; only where it can't, this line stays.
                self._progress.live.transient = True
            except* ImportStoppedError as stopped:
                raise stopped.exceptions[0] from None
            except* (_BusyError, aiohttp.ClientError, TimeoutError) as failed:
                raise ImportStoppedError(
                    f"a capture was not taken for {GIVE_UP_SECONDS} s ({failed.exceptions[0]!r}). "
                    "What was stored stays; import the file again to store the rest"
                ) from None

    async def _take(self, numbered: Iterator[tuple[int, bytes]], task: TaskID) -> None:
        for number, line in numbered:
            if line.strip():
                try:
                    await self._import_line(line)
                except _RefusedError as error:
                    self.totals.failed += 1
                    self._console.print(f"line {number}: {error}", markup=False)
            self._progress.advance(task)

    async def _import_line(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            raise _RefusedError(f"longer than {MAX_LINE_BYTES} bytes: cut the conversation up")
        try:
            conversation = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _RefusedError(f"not JSON: {error}") from None
        if not isinstance(conversation, dict) or not isinstance(conversation.get("messages"), list):
            raise _RefusedError("not an object with an array `messages`")
        for index, capture in enumerate(cut(conversation, self._turn_by_turn)):
            body = msgspec.json.encode(capture)
            # Where messages have no id, a repeat of this import must not store them twice.
            key = f"{index}-{hashlib.sha256(body).hexdigest()}"
            answer = await self._post(body, key)
            self.totals.add(len(capture["messages"]), answer)

    async def _post(self, body: bytes, key: str) -> CaptureAnswer:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((_BusyError, aiohttp.ClientError, TimeoutError)),
            wait=_wait,
            stop=stop_after_delay(GIVE_UP_SECONDS),
            reraise=True,
        ):
            with attempt:
                return await self._post_once(body, key)
        raise AssertionError("unreachable")

    async def _post_once(self, body: bytes, key: str) -> CaptureAnswer:
        async with self._http.post(self._url, data=body, headers={"Idempotency-Key": key}) as got:
            content = await got.read()
            if got.status == 200:
                return msgspec.json.decode(content, type=CaptureAnswer)
            message = _error_of(content)
            if got.status in {429, 503}:
                raise _BusyError(message, float(got.headers.get("Retry-After", "1")))
            if got.status in {401, 403}:
                raise ImportStoppedError(f"{message} See --api-key and OPENBAT_API_KEY.")
            raise _RefusedError(f"answered with {got.status}: {message}")


async def _check_gateway(http: aiohttp.ClientSession, url: str) -> None:
    """Make sure that there is a gateway, so that a wrong address is not retried for minutes.

    Raises:
        ImportStoppedError: there is none.

    """
    advice = "--url is the gateway's address alone, such as http://127.0.0.1:8080"
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((aiohttp.ClientConnectionError, TimeoutError)),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            stop=stop_after_delay(CONNECT_SECONDS),
            reraise=True,
        ):
            with attempt:
                async with http.get(f"{url}/healthz") as answer:
                    if answer.status != 200:
                        raise ImportStoppedError(f"there is no gateway at {url}: {advice}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ImportStoppedError(f"no gateway answers at {url} ({error}): {advice}") from None


def _wait(state: RetryCallState) -> float:
    """As long as Retry-After says, and a growing, random while more."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, _BusyError) else 0.0
    return asked + _jitter(state)


_jitter = wait_random_exponential(multiplier=0.2, max=5)


def _error_of(content: bytes) -> str:
    try:
        error = msgspec.json.decode(content, type=ErrorAnswer).error
    except msgspec.DecodeError:
        return content[:200].decode(errors="replace")
    return f"{error.message} ({error.path})" if error.path else error.message


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Yield lines; of one that is too long only the beginning, which is over the limit.

    Raises ImportStoppedError where the file breaks off.
    """
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line
            while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise ImportStoppedError(
            f"the file can't be read further ({error}). What was stored stays; "
            "import the whole file to store the rest"
        ) from None


@contextlib.contextmanager
def _open(name: str) -> Iterator[Iterator[bytes]]:
    """Open a file, plain or gzip, whatever it is called."""
    try:
        with contextlib.ExitStack() as exits:
            plain = sys.stdin.buffer if name == "-" else exits.enter_context(Path(name).open("rb"))
            start = plain.peek(2) if isinstance(plain, io.BufferedReader) else b""
            yield _lines(gzip.GzipFile(fileobj=plain) if start[:2] == _GZIP else plain)
    except (OSError, EOFError) as error:
        raise ImportStoppedError(f"{name} can't be read: {error}") from None
