"""The real stack that tests run against: `openbat local`, or containers.

Both give the same Stack. One that can't start is an error, so a test that needs it fails.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from openbat.connection import Connection

ROOT = Path(__file__).parent.parent
START_SECONDS = 180
STOP_SECONDS = 30
OPENBAT = [sys.executable, "-m", "openbat"]
CONTAINERS = "containers"
LOCAL = "local"


def kind() -> str:
    """Which stack the tests use: OPENBAT_TEST_STACK, `local` unless it says `containers`."""
    chosen = os.environ.get("OPENBAT_TEST_STACK") or LOCAL
    if chosen not in {LOCAL, CONTAINERS}:
        raise ValueError(f"OPENBAT_TEST_STACK={chosen}: expected {LOCAL} or {CONTAINERS}")
    return chosen


class Stack:
    """A running pipeline.

    Attributes:
        environment: what `openbat` commands need to find it.

    """

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.environment = {**os.environ, **environment}

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data_dir / "local.json").read_text())
        return found

    @property
    def gateway_url(self) -> str:
        return str(self.state["gateway_url"])

    @property
    def connection(self) -> Connection:
        return Connection(str(self.state["kafka_bootstrap"]))

    def pids(self, role: str) -> list[int]:
        return [found["pid"] for found in self.state["processes"] if found["role"] == role]

    def openbat(
        self, *arguments: str, stdin: str | None = None, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an `openbat` command to its end."""
        return subprocess.run(
            [*OPENBAT, *arguments],
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=170,
            check=check,
        )

    def make_chatbot(self, name: str) -> str:
        """Make a chatbot; return its key."""
        return self.openbat("chatbots", "create", name).stdout.strip()

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Return a query's rows."""
        answer = httpx.post(
            str(self.state["clickhouse_url"]),
            params={"output_format_json_quote_64bit_integers": "0"},
            content=f"{query} FORMAT JSON",
            timeout=60,
        )
        if answer.status_code != 200:
            raise AssertionError(answer.text)
        rows: list[dict[str, Any]] = json.loads(answer.content)["data"]
        return rows

    def wait_sql(
        self, query: str, expected: list[dict[str, Any]], seconds: float = 30
    ) -> list[dict[str, Any]]:
        """Return a query's rows as soon as they are as expected, or what they were at the end."""
        end = time.monotonic() + seconds
        while (rows := self.sql(query)) != expected and time.monotonic() < end:
            time.sleep(0.1)
        return rows


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


class Running:
    """A process that a test starts, perhaps again and again, and stops by its id."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._arguments = arguments
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it with SIGTERM, or with SIGKILL where it takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


@contextlib.contextmanager
def process(arguments: list[str], environment: Mapping[str, str], log: Path) -> Iterator[Running]:
    """Run a process; stop it by its id at the end."""
    running = Running(arguments, environment, log)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def local_stack(data_dir: Path, **environment: str) -> Iterator[Stack]:
    """Run `openbat local` on free ports."""
    stack = Stack(
        data_dir,
        {
            "OPENBAT_DATA_DIR": str(data_dir),
            "OPENBAT_PORT": "0",
            "OPENBAT_KAFKA_PORT": "0",
            "OPENBAT_CLICKHOUSE_PORT": "0",
            # What a test is not about takes no processor time from it.
            "OPENBAT_ANALYSIS_WORKERS": "0",
            "OPENBAT_JARS_DIR": os.environ.get("OPENBAT_JARS_DIR", str(ROOT / ".openbat" / "jars")),
            **environment,
        },
    )
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "stack.log"
    with process([*OPENBAT, "local"], stack.environment, log) as running:
        end = time.monotonic() + START_SECONDS
        while not (data_dir / "local.json").exists():
            if running.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the local stack did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield stack
