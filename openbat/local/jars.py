"""The jars of Apache Kafka: pinned in jars.lock, verified at every start, fetched when missing.

Nothing is resolved at run time. jars.lock names every jar with its SHA-256; jgo only carries
the bytes from a Maven repository, so that neither Maven nor Java is needed for it.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

_ATTEMPTS = 2
_PARALLEL_DOWNLOADS = 6
_HTTP_TIMEOUT_SECONDS = 30

JgoProgress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class JarsError(RuntimeError):
    """Raised when a pinned jar can't be had. The message says which and what to do."""


@dataclass(frozen=True)
class Pin:
    """One jar of the lock file."""

    group: str
    artifact: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def parse_lock(text: str) -> list[Pin]:
    """Read lines of `group:artifact:version sha256 size`, and # comments."""
    pins = []
    for line in text.splitlines():
        if not line.startswith("#"):
            coordinate, sha256, size = line.split()
            group, artifact, version = coordinate.split(":")
            pins.append(Pin(group, artifact, version, sha256, int(size)))
    return pins


def locked() -> list[Pin]:
    """Return the pins that this package ships."""
    return parse_lock(files(__package__).joinpath("jars.lock").read_text(encoding="utf-8"))


def is_intact(path: Path, pin: Pin) -> bool:
    """Tell whether the file is there and is, to the byte, the pinned jar."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == pin.sha256
    except FileNotFoundError:
        return False


def fetch(
    jars_dir: Path, progress: Progress | None = None, pins: Sequence[Pin] | None = None
) -> list[Path]:
    """Make sure that every pinned jar is in `jars_dir` with its hash; return the paths, in order.

    Blocks. Reads and hashes all jars (about 45 MB) each time; goes to the network only for those
    missing or altered, and then shows `progress` (a bar on stderr unless given). Writes under
    `jars_dir` alone. Processes that fetch into one directory at the same time wait for each
    other; a jar appears by a rename, whole, so one that a running broker has open stays valid.
    Raises JarsError.
    """
    pins = locked() if pins is None else pins
    if _wanting(jars_dir, pins):
        with _only_fetcher(jars_dir):
            # Asked again: another process may have fetched them while this one waited.
            if wanting := _wanting(jars_dir, pins):
                with progress or _bar() as shown:
                    _fetch_all(jars_dir, wanting, shown)
    return [jars_dir / pin.filename for pin in pins]


def _wanting(jars_dir: Path, pins: Sequence[Pin]) -> list[Pin]:
    return [pin for pin in pins if not is_intact(jars_dir / pin.filename, pin)]


@contextmanager
def _only_fetcher(jars_dir: Path) -> Iterator[None]:
    """Hold the directory's lock; the kernel gives it back if this process is killed."""
    jars_dir.mkdir(parents=True, exist_ok=True)
    with (jars_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
    )


def _fetch_all(jars_dir: Path, pins: Sequence[Pin], progress: Progress) -> None:
    task = progress.add_task(_title(pins), total=sum(pin.size_bytes for pin in pins))

    @contextmanager
    def advance(_filename: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield lambda count: progress.advance(task, count)

    # Under the lock nobody else uses it: what is there was left by a fetch that was killed.
    partial = jars_dir / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            running = [pool.submit(_fetch_one, jars_dir, partial, pin, advance) for pin in pins]
            try:
                for done in as_completed(running):
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _title(pins: Sequence[Pin]) -> str:
    versions = [pin.version for pin in locked() if pin.artifact.startswith("kafka_")]
    return f"Fetching Apache Kafka {versions[0]} ({len(pins)} jar{'s' if len(pins) > 1 else ''})"


def _fetch_one(jars_dir: Path, partial: Path, pin: Pin, progress: JgoProgress) -> None:
    reason = ""
    for _ in range(_ATTEMPTS):
        try:
            downloaded = _download(partial, pin, progress)
        # jgo raises RuntimeError for what no repository has; what requests raises is an OSError.
        except (OSError, RuntimeError) as error:
            reason = str(error)
            continue
        if is_intact(downloaded, pin):
            downloaded.replace(jars_dir / pin.filename)
            return
        reason = "what came has another SHA-256 than jars.lock"
    raise JarsError(
        f"Can't fetch {pin.group}:{pin.artifact}:{pin.version}: {reason}. Check the network (and "
        f"HTTPS_PROXY) and start again, or put the jar at {jars_dir / pin.filename} yourself."
    )


def _download(partial: Path, pin: Pin, progress: JgoProgress) -> Path:
    # Imported here: slow to import, and not needed when every jar is there.
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=partial,
        timeout=_HTTP_TIMEOUT_SECONDS,
    )
    artifact = context.project(pin.group, pin.artifact).at_version(pin.version).artifact()
    # jgo takes a file that is there for the jar, even one cut short by the attempt before.
    artifact.cached_path.unlink(missing_ok=True)
    path: Path = artifact.resolve()
    return path
