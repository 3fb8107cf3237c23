"""Starts processes, starts them again when they die, and stops them in order."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger()

RESTART_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """Raised when a process does not get ready; says where its log is."""


@dataclass(frozen=True)
class Spec:
    """A process to be kept running.

    Attributes:
        role: what it is called in local.json.
        argv: the working process itself, no wrapper.
        environment: beside this process's own.
        fds: listening sockets that it inherits, so that it keeps its port when it is replaced.
        before_start: called before every start, in a thread; may block.
        stop_seconds: how long it may take to stop before it is killed.

    """

    role: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    fds: Sequence[int] = ()
    before_start: Callable[[], None] | None = None
    stop_seconds: float = 5.0


class Supervised:
    """One process and its successors."""

    def __init__(self, spec: Spec, name: str, log_path: Path, notify_path: Path) -> None:
        self.spec = spec
        self.name = name
        self.pid = 0
        self.ready = asyncio.Event()
        self.log_path = log_path
        self._notify_path = notify_path
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self, on_replaced: Callable[[], None]) -> None:
        self._task = asyncio.create_task(self._keep_running(on_replaced))

    async def stop(self) -> None:
        """Ask it to end; kill it where it takes too long."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), self.spec.stop_seconds)
            except TimeoutError:
                log.warning("killed: it did not stop in time", process=self.name)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_running(self, on_replaced: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Notified(self.ready), local_addr=str(self._notify_path), family=1
        )
        try:
            while not self._stopping:
                process = await self._spawn()
                replaces = self.pid
                self.pid = process.pid
                if replaces:
                    on_replaced()
                status = await process.wait()
                if not self._stopping:
                    log.warning(
                        "process died; starting it again",
                        process=self.name, status=status, log=str(self.log_path),
                    )  # fmt: skip
                    await asyncio.sleep(RESTART_SECONDS)
        finally:
            transport.close()

    async def _spawn(self) -> asyncio.subprocess.Process:
        if self.spec.before_start is not None:
            await asyncio.to_thread(self.spec.before_start)
        # A session of its own: a signal to our group reaches us alone, and we stop it in order.
        with self.log_path.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                env={
                    **os.environ,
                    **self.spec.environment,
                    "NOTIFY_SOCKET": str(self._notify_path),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self.spec.fds,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        return self._process


class Supervisor:
    """Keeps processes running until told to stop.

    Args:
        log_dir: a log per process.
        on_replaced: called whenever a process was replaced by a new one.

    """

    def __init__(self, log_dir: Path, on_replaced: Callable[[], None]) -> None:
        self._log_dir = log_dir
        self._on_replaced = on_replaced
        self._sockets = tempfile.TemporaryDirectory(prefix="openbat-")
        self.processes: list[Supervised] = []
        log_dir.mkdir(parents=True, exist_ok=True)

    def start(self, spec: Spec) -> Supervised:
        """Start a process, and keep it running."""
        number = sum(process.spec.role == spec.role for process in self.processes)
        name = f"{spec.role}-{number}"
        process = Supervised(
            spec, name, self._log_dir / f"{name}.log", Path(self._sockets.name) / name
        )
        self.processes.append(process)
        process.start(self._on_replaced)
        return process

    async def wait_ready(self, processes: Sequence[Supervised], timeout_seconds: float) -> None:
        """Return when all have said that they are ready.

        Raises:
            StartError: one has not within the time.

        """
        for process in processes:
            try:
                await asyncio.wait_for(process.ready.wait(), timeout_seconds)
            except TimeoutError:
                raise StartError(
                    f"{process.name} did not get ready within {timeout_seconds:g} s: "
                    f"see {process.log_path}"
                ) from None

    async def stop(self) -> None:
        """Stop everything: role by role, in the reverse order of their start."""
        roles = list(dict.fromkeys(process.spec.role for process in self.processes))
        for role in reversed(roles):
            await asyncio.gather(
                *(process.stop() for process in self.processes if process.spec.role == role)
            )
        self._sockets.cleanup()


class _Notified(asyncio.DatagramProtocol):
    def __init__(self, ready: asyncio.Event) -> None:
        self._ready = ready

    def datagram_received(self, data: bytes, addr: object) -> None:
        if b"READY=1" in data.split(b"\n"):
            self._ready.set()


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies, however that dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
