"""The roles' processes, each replaced where it stands by one of another release."""

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.stack import START_SECONDS, Running
from tests.upgrade.releases import Release

COMMANDS = {
    "clickhouse-server": ["local-clickhouse"],
    "gateway": ["gateway"],
    "conversations": ["worker", "conversations"],
    "clickhouse": ["worker", "clickhouse"],
    "analysis": ["worker", "analysis"],
}
STOPPED = {0, -15}
"""How a role ends that was told to: uvicorn raises SIGTERM again when it is done."""

LOOK_SECONDS = 0.2
LOG_END_CHARACTERS = 3000

Place = tuple[str, int]
"""A role, and which of its processes."""


class Fleet:
    """Starts and replaces processes.

    A place keeps its port. A worker keeps its directory and its identity, because it takes the
    slot that the one before it left.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        own: Mapping[Place, Mapping[str, str]],
        logs: Path,
        sockets: Path,
    ) -> None:
        self._environment = environment
        self._own = own
        self._logs = logs
        self._sockets = sockets
        self._running: dict[Place, Running] = {}
        self._log_of: dict[Place, Path] = {}
        self._started = 0

    def start(self, release: Release, *places: Place) -> None:
        """Start processes; return when all have said that they are ready.

        Raises:
            AssertionError: one of them has ended, or did not say so in time; quotes its log's end.

        """
        with contextlib.ExitStack() as exits:
            listeners = []
            for place in places:
                self._started += 1
                address = self._sockets / str(self._started)
                listener = exits.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                listener.bind(str(address))
                listener.settimeout(LOOK_SECONDS)
                listeners.append(listener)
                self._launch(release, place, address)
            end = time.monotonic() + START_SECONDS
            for place, listener in zip(places, listeners, strict=True):
                while not _said_something(listener):
                    for each in places:
                        status = self._running[each].poll()
                        assert status is None, self._told(each, f"ended with {status}")
                    assert time.monotonic() < end, self._told(place, "did not get ready")

    def _told(self, place: Place, what: str) -> str:
        log = self._log_of[place]
        return f"{log.name} {what}:\n{log.read_text()[-LOG_END_CHARACTERS:]}"

    def _launch(self, release: Release, place: Place, notify: Path) -> None:
        role, number = place
        own = {**self._own.get(place, {}), "NOTIFY_SOCKET": str(notify)}
        log = self._log_of[place] = (
            self._logs / f"{self._started:02}-{role}-{number}-{release.name}.log"
        )
        running = self._running[place] = Running(
            release.command(*COMMANDS[role]),
            release.environment({**self._environment, **own}),
            log,
        )
        running.start()

    def stop(self, *places: Place) -> None:
        """Stop processes in order."""
        for place in places:
            running = self._running.pop(place)
            running.stop()
            assert running.poll() in STOPPED, place

    def replace(self, release: Release, *places: Place) -> None:
        """Stop processes, each of another role, and start others in their places."""
        self.stop(*places)
        self.start(release, *places)

    def kill_all(self) -> None:
        for running in self._running.values():
            running.kill()


def _said_something(listener: socket.socket) -> bool:
    try:
        return bool(listener.recv(64))
    except TimeoutError:
        return False


@contextlib.contextmanager
def fleet(
    environment: Mapping[str, str], own: Mapping[Place, Mapping[str, str]], logs: Path
) -> Iterator[Fleet]:
    """Yield a fleet without processes; end those that run at the end.

    Args:
        environment: of all of them.
        own: what the process at a place has beside it.
        logs: a directory for a log of each.

    """
    # The path of a socket has room for about a hundred characters.
    with TemporaryDirectory(prefix="openbat-") as sockets:
        made = Fleet(environment, own, logs, Path(sockets))
        try:
            yield made
        finally:
            made.kill_all()
