"""The roles' processes, each replaced where it stands by one of another release."""

import contextlib
import socket
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
        self._started = 0

    def start(self, release: Release, *places: Place) -> None:
        """Start processes; return when all have said that they are ready."""
        with contextlib.ExitStack() as exits:
            listeners = []
            for place in places:
                self._started += 1
                address = self._sockets / str(self._started)
                listener = exits.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                listener.bind(str(address))
                listener.settimeout(START_SECONDS)
                listeners.append(listener)
                self._launch(release, place, address)
            for place, listener in zip(places, listeners, strict=True):
                try:
                    listener.recv(64)
                except TimeoutError:
                    raise AssertionError(f"{place} of {release.name} did not get ready") from None

    def _launch(self, release: Release, place: Place, notify: Path) -> None:
        role, number = place
        own = {**self._own.get(place, {}), "NOTIFY_SOCKET": str(notify)}
        running = self._running[place] = Running(
            release.command(*COMMANDS[role]),
            release.environment({**self._environment, **own}),
            self._logs / f"{self._started:02}-{role}-{number}-{release.name}.log",
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
