"""local.json: where a running local stack is. Other tools rely on its names."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct


class Process(Struct):
    """A process, and where it serves its metrics; of Kafka and ClickHouse's engine, nowhere.

    `name` is that of its log file; empty where it was written by an older release.
    """

    role: str
    pid: int
    metrics_url: str | None = None
    name: str = ""


class LocalState(Struct):
    """What local.json holds.

    `pid` is of the supervisor, which stops all the others at SIGTERM; None as `name` is empty.
    """

    gateway_url: str
    clickhouse_url: str
    kafka_bootstrap: str
    chatbot_id: str
    api_key: str
    processes: list[Process]
    pid: int | None = None

    def __repr__(self) -> str:
        return f"LocalState({self.gateway_url})"  # without the key


def path(data_dir: Path) -> Path:
    return data_dir / "local.json"


def write_private(target: Path, content: bytes) -> None:
    """Write a file whole, readable by its owner alone."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(target)


def read_text(target: Path) -> str:
    """Return a small file's stripped text, empty where there is none."""
    try:
        return target.read_text().strip()
    except FileNotFoundError:
        return ""


def write(data_dir: Path, state: LocalState) -> None:
    content: dict[str, Any] = msgspec.to_builtins(state)
    write_private(path(data_dir), json.dumps(content, indent=2).encode() + b"\n")


def read(data_dir: Path) -> LocalState | None:
    """Return the running stack's state, None where none is running.

    A stack that was killed leaves its state behind, but not its lock.
    """
    try:
        state = msgspec.json.decode(path(data_dir).read_bytes(), type=LocalState)
        with _lock_file(data_dir).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return state
    return None


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the lock of whoever runs a local stack. Raises BlockingIOError where one runs."""
    with _lock_file(data_dir).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _lock_file(data_dir: Path) -> Path:
    return data_dir / "lock"
