"""Workers over a broker of a test's own: with other disks, or none."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from openbat.connection import Connection
from tests.stack import OPENBAT, Running, process, wait_until

READY_SECONDS = 900.0


class Worker:
    """One worker; its disk is its directory."""

    def __init__(self, running: Running, log: Path) -> None:
        self.running = running
        self.log = log

    def wait_ready(self) -> None:
        """Return when it has joined its group and its table is recovered."""
        wait_until(lambda: self._said("ready"), READY_SECONDS, f"{self.log}: ready")

    def wait_copied(self) -> None:
        """Return when its standby copies are up to date."""
        wait_until(
            lambda: self._said("standby copies are up to date"),
            READY_SECONDS,
            f"{self.log}: copies",
        )

    def _said(self, event: str) -> bool:
        if self.running.poll() is not None:
            raise AssertionError(self.log.read_text()[-3000:])
        return f'"event": "{event}"' in self.log.read_text()


@contextlib.contextmanager
def worker(
    connection: Connection, directory: Path, role: str = "conversations", **environment: str
) -> Iterator[Worker]:
    """Run a worker on a directory, which is made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "log"
    log.unlink(missing_ok=True)
    settings = {
        **os.environ,
        "OPENBAT_DATA_DIR": str(directory),
        "OPENBAT_KAFKA_BOOTSTRAP": connection.bootstrap,
        **environment,
    }
    with process([*OPENBAT, "worker", role], settings, log) as running:
        yield Worker(running, log)
