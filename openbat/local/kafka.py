"""Apache Kafka in KRaft mode for one machine: a broker and its controller in one JVM.

`prepare` writes what the JVM reads, `command` is the JVM's argv, `wait_ready` tells when clients
may come. Who starts the process, keeps its output and stops it (SIGTERM) is the caller's part.
Under the data directory, `kafka/log` holds the records and is the only thing to keep; the rest
is written again at every start.
"""

import asyncio
import base64
import html
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoError

from openbat.local.java import Java, KafkaSetupError

_HOST = "127.0.0.1"
_NODE_ID = 1
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_POLL_SECONDS = 0.05
_REQUEST_TIMEOUT_MS = 2000


class Layout(NamedTuple):
    """Where things are under a data directory."""

    root: Path
    properties: Path
    log_config: Path
    # What the broker says: warnings and worse.
    log_file: Path
    # Kafka's log.dirs: the records.
    log_dir: Path
    formatting: Path
    temporary: Path


def layout(data_dir: Path) -> Layout:
    root = data_dir.absolute() / "kafka"
    names = ("server.properties", "log4j2.xml", "kafka.log", "log", "formatting", "tmp")
    return Layout(root, *(root / name for name in names))


Properties = Mapping[str, str | int]


def server_properties(
    log_dir: Path, port: int, controller_port: int, overrides: Properties | None = None
) -> str:
    """Return the text of server.properties. Raises KafkaSetupError for a path Kafka can't take."""
    if "," in str(log_dir):
        raise KafkaSetupError(f"Kafka reads a comma in a path as two paths: {log_dir}.")
    settings: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": _NODE_ID,
        # Static voters: the voter's address is read from here at every start, never from the
        # log, so the controller may come back on another port.
        "controller.quorum.voters": f"{_NODE_ID}@{_HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{_HOST}:{port},CONTROLLER://{_HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{_HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": escape(str(log_dir)),
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        # One broker, so one replica of Kafka's own topics; few partitions start faster.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "message.max.bytes": _MAX_MESSAGE_BYTES,
        "replica.fetch.max.bytes": _MAX_MESSAGE_BYTES,
        # Consumers join at once, and tests may notice a dead one soon.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # After a hard kill the controller takes the dead broker for alive, and refuses the new
        # one, until this session ends; with Kafka's 9 s that is most of the restart.
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 500,
        # No-op records, each flushed to disk, that only other controllers would watch for.
        "metadata.max.idle.interval.ms": 0,
        # After a hard kill each partition's last segment is read again: bounded, seconds at most.
        "log.segment.bytes": 128 * 1024 * 1024,
        # Taken from the heap at start; Kafka's 128 MB would be a quarter of it.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        **(overrides or {}),
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def escape(value: str) -> str:
    r"""Escape a value as java.util.Properties reads it: Latin-1, the rest as \uXXXX."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    pairs = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in pairs)


def log_config(log_file: Path) -> str:
    """Return the text of log4j2.xml: warnings and worse to one file, 4 x 10 MB at most."""
    name = html.escape(str(log_file))
    # shutdownHook: the broker's own hook is what stops it, and log4j's would silence it.
    return f"""\
<Configuration status="ERROR" shutdownHook="disable">
  <Appenders>
    <RollingFile name="file" fileName="{name}" filePattern="{name}.%i">
      <PatternLayout pattern="%d{{ISO8601}} %p %c{{1}} %m%n"/>
      <SizeBasedTriggeringPolicy size="10 MB"/>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""


def _jvm(java: Java, paths: Layout, jars: Sequence[Path]) -> list[str]:
    # From these versions on the JVM warns of what Kafka and its codecs do; the older ones don't
    # know the option (17 knows the first one, but not for code outside modules).
    quiet = {22: "--enable-native-access=ALL-UNNAMED", 23: "--sun-misc-unsafe-memory-access=allow"}
    return [
        str(java.executable),
        # A broker copies bytes: the second compiler and a concurrent collector cost more
        # processor time and memory here than they give back.
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        # No files in the system's temporary directory that a hard kill would leave behind.
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={paths.root / 'jvm-error-%p.log'}",
        f"-Djava.io.tmpdir={paths.temporary}",
        f"-Dlog4j2.configurationFile={paths.log_config}",
        *(option for since, option in quiet.items() if java.feature >= since),
        "-cp",
        os.pathsep.join(str(jar.absolute()) for jar in jars),
    ]


def command(data_dir: Path, jars: Sequence[Path], java: Java) -> list[str]:
    """Return the argv of the broker: the JVM itself, for a directory that `prepare` made ready.

    On SIGTERM it stops cleanly, with exit code 143; it exits by itself when it runs out of heap.
    """
    paths = layout(data_dir)
    executable, *options = _jvm(java, paths, jars)
    heap = ["-Xms64m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError"]
    return [executable, *heap, *options, "kafka.Kafka", str(paths.properties)]


def prepare(
    data_dir: Path,
    jars: Sequence[Path],
    java: Java,
    port: int,
    controller_port: int | None = None,
    overrides: Properties | None = None,
    cluster_id: str | None = None,
) -> None:
    """Make the directory ready for a start of the broker on 127.0.0.1:`port`.

    To be called before every start, never while the broker runs; blocks. Writes the settings
    afresh, so that the ports may differ from the last time (the controller takes any free one
    unless told). `overrides` are properties that are to differ, as several brokers' must; those
    also share a `cluster_id`. The first time it also formats the storage, which takes a second; a
    format cut short leaves nothing that counts. Raises KafkaSetupError.
    """
    paths = layout(data_dir)
    paths.root.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(paths.temporary, ignore_errors=True)
    paths.temporary.mkdir()
    paths.log_config.write_text(log_config(paths.log_file), encoding="utf-8")
    controller_port = controller_port or _free_port(port)
    if not (paths.log_dir / "meta.properties").exists():
        settings = server_properties(paths.formatting, port, controller_port, overrides)
        _format(paths, jars, java, settings, cluster_id or new_cluster_id())
    settings = server_properties(paths.log_dir, port, controller_port, overrides)
    paths.properties.write_text(settings, encoding="ascii")


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _format(
    paths: Layout, jars: Sequence[Path], java: Java, settings: str, cluster_id: str
) -> None:
    """Format beside the log directory and move into place: it is formatted wholly or not there."""
    if paths.log_dir.exists() and any(paths.log_dir.iterdir()):
        raise KafkaSetupError(
            f"{paths.log_dir} holds files but no meta.properties: not a storage of Kafka, or a "
            "damaged one. Move it away to start with an empty one."
        )
    shutil.rmtree(paths.formatting, ignore_errors=True)
    paths.properties.write_text(settings, encoding="ascii")
    # Written with "=", an id that begins with a dash isn't taken for an option.
    arguments = ["format", f"--cluster-id={cluster_id}", "--config", str(paths.properties)]
    done = subprocess.run(
        [*_jvm(java, paths, jars), "kafka.tools.StorageTool", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise KafkaSetupError(f"Kafka's storage can't be formatted:\n{done.stdout}")
    paths.formatting.replace(paths.log_dir)


def _free_port(taken: int) -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port if port != taken else _free_port(taken)


async def wait_ready(bootstrap: str, timeout_seconds: float) -> None:
    """Return when the broker at `bootstrap` (host:port) would create a topic if asked to.

    That takes an elected controller and a broker that it lets in. Raises TimeoutError.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                if await _listens(bootstrap) and await _serves(bootstrap):
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        late = f"Kafka at {bootstrap} was not ready within {timeout_seconds} s."
        raise TimeoutError(late) from None


async def _listens(bootstrap: str) -> bool:
    """Knock first: the client would log an error for each connection refused."""
    host, _, port = bootstrap.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    with closing(writer):
        return True


async def _serves(bootstrap: str) -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        if not cluster["brokers"] or cluster["controller_id"] < 0:
            return False
        # Refused while the controller is being elected or has let no broker in.
        probe = NewTopic(f"ready-{uuid.uuid4()}", num_partitions=1, replication_factor=1)
        answer = await admin.create_topics([probe], validate_only=True)
        return all(error[1] == NoError.errno for error in answer.topic_errors)
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await admin.close()
