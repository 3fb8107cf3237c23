"""The local broker on a real JVM, and its jars from a real repository (fetched once)."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.progress import Progress

from openbat.local import jars, java, kafka

REPOSITORY = Path(__file__).resolve().parents[2]
JARS_DIR = Path(os.environ.get("OPENBAT_JARS_DIR") or REPOSITORY / ".openbat" / "jars")
READY_SECONDS = 30
STOP_SECONDS = 5
TOPIC = "captures"
PARTITIONS = 4

FETCH_SMALLEST = """
import sys
from pathlib import Path
from openbat.local import jars
pins = sorted(jars.locked(), key=lambda pin: pin.size_bytes)[:2]
jars.fetch(Path(sys.argv[1]), pins=pins)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def smallest(count: int) -> list[jars.Pin]:
    return sorted(jars.locked(), key=lambda pin: pin.size_bytes)[:count]


@pytest.fixture(scope="module")
def kafka_jars() -> list[Path]:
    return jars.fetch(JARS_DIR)


@contextmanager
def broker(
    data_dir: Path, kafka_jars: Sequence[Path], port: int
) -> Iterator[subprocess.Popen[bytes]]:
    runtime = java.find_java()
    kafka.prepare(data_dir, kafka_jars, runtime, port)
    process = subprocess.Popen(
        kafka.command(data_dir, kafka_jars, runtime),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


async def produce(bootstrap: str, values: Sequence[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        sent = [await producer.send(TOPIC, value) for value in values]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def create_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
        assert [error[1] for error in answer.topic_errors] == [0]
    finally:
        await admin.close()


async def consume(bootstrap: str) -> list[bytes]:
    """Read the whole topic, up to its end at this moment."""
    partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        values: list[bytes] = []
        while len(values) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                values += [record.value for record in records]
        return values
    finally:
        await consumer.stop()


async def test_acknowledged_records_outlive_kills_and_other_ports(
    tmp_path: Path, kafka_jars: list[Path]
) -> None:
    values = [b"record %d" % number for number in range(5000)]
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    with broker(tmp_path, kafka_jars, port) as process:
        await kafka.wait_ready(bootstrap, READY_SECONDS)
        await create_topic(bootstrap)
        await produce(bootstrap, values[:2500])
        process.send_signal(signal.SIGKILL)
    with broker(tmp_path, kafka_jars, port) as process:
        await kafka.wait_ready(bootstrap, READY_SECONDS)
        assert sorted(await consume(bootstrap)) == sorted(values[:2500])
        await produce(bootstrap, values[2500:])
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=STOP_SECONDS)
        assert (process.returncode, said) == (128 + signal.SIGTERM, b"")
    other = free_port()
    with broker(tmp_path, kafka_jars, other):
        await kafka.wait_ready(f"127.0.0.1:{other}", READY_SECONDS)
        assert sorted(await consume(f"127.0.0.1:{other}")) == sorted(values)


def test_formatting_is_whole_or_not_there(tmp_path: Path, kafka_jars: list[Path]) -> None:
    runtime, paths = java.find_java(), kafka.layout(tmp_path)
    paths.formatting.mkdir(parents=True)
    (paths.formatting / "meta.properties").write_text("cut short")
    kafka.prepare(tmp_path, kafka_jars, runtime, free_port())
    formatted = (paths.log_dir / "meta.properties").read_text()
    assert "cluster.id=" in formatted
    assert not paths.formatting.exists()
    kafka.prepare(tmp_path, kafka_jars, runtime, free_port())
    assert (paths.log_dir / "meta.properties").read_text() == formatted


def test_a_directory_that_is_not_kafkas_is_left_alone(
    tmp_path: Path, kafka_jars: list[Path]
) -> None:
    paths = kafka.layout(tmp_path)
    paths.log_dir.mkdir(parents=True)
    (paths.log_dir / "something").touch()
    with pytest.raises(java.KafkaSetupError, match=r"no meta\.properties"):
        kafka.prepare(tmp_path, kafka_jars, java.find_java(), free_port())
    assert (paths.log_dir / "something").exists()


async def test_waiting_for_a_broker_that_is_not_there_ends() -> None:
    with pytest.raises(TimeoutError, match=r"not ready within 0\.2 s"):
        await kafka.wait_ready(f"127.0.0.1:{free_port()}", 0.2)


def test_an_altered_jar_is_fetched_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = smallest(2)
    paths = jars.fetch(tmp_path, pins=pins)
    assert "Fetching Apache Kafka 4.2.0 (2 jars)" in capsys.readouterr().err
    paths[0].write_bytes(b"altered")
    assert jars.fetch(tmp_path, pins=pins) == paths
    assert all(jars.is_intact(path, pin) for path, pin in zip(paths, pins, strict=True))
    assert "(1 jar)" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [".lock", *(path.name for path in paths)]
    )


def test_nothing_is_shown_or_written_when_every_jar_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kafka_jars: list[Path]
) -> None:
    for path in kafka_jars:
        (tmp_path / path.name).symlink_to(path)
    jars.fetch(tmp_path)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / ".lock").exists()


def test_a_jar_that_never_matches_is_named(tmp_path: Path) -> None:
    pin = smallest(1)[0]
    wrong = jars.Pin(pin.group, pin.artifact, pin.version, "0" * 64, pin.size_bytes)
    with pytest.raises(jars.JarsError, match=f"{pin.artifact}:{pin.version}.*another SHA-256"):
        jars.fetch(tmp_path, Progress(disable=True), [wrong])
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_two_fetches_at_once_both_end_well(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH_SMALLEST, str(tmp_path)],
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=READY_SECONDS)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    # The one that came second waited, and found everything there.
    assert sum("Fetching" in text for text in said) == 1
    pins = smallest(2)
    assert all(jars.is_intact(tmp_path / pin.filename, pin) for pin in pins)


def test_the_lock_file_pins_each_jar_once() -> None:
    pins = jars.locked()
    assert len({pin.filename for pin in pins}) == len(pins)
    assert all(len(pin.sha256) == 64 and pin.size_bytes > 0 for pin in pins)


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ("/data/kafka", "/data/kafka"),
        ("/with space/k", "/with space/k"),
        ("C:\\data", "C:\\\\data"),
        ("/dätä", "/d\\u00e4t\\u00e4"),
        ("/😀", "/\\ud83d\\ude00"),
        ("/a\nb", "/a\\u000ab"),
    ],
)
def test_paths_are_escaped_as_java_reads_them(path: str, escaped: str) -> None:
    assert f"log.dirs={escaped}\n" in kafka.server_properties(Path(path), 1, 2)


def test_server_properties_follow_the_ports() -> None:
    lines = kafka.server_properties(Path("/d"), 9092, 9093).splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    assert len(settings) == len(lines)
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert settings["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["unclean.leader.election.enable"] == "false"
    assert settings["message.max.bytes"] == settings["replica.fetch.max.bytes"]


def test_a_comma_in_the_path_is_refused() -> None:
    with pytest.raises(java.KafkaSetupError, match="comma"):
        kafka.server_properties(Path("/a,b"), 1, 2)


def test_options_follow_the_java_version(tmp_path: Path) -> None:
    old = kafka.command(tmp_path, [], java.Java(Path("/java"), 17))
    new = kafka.command(tmp_path, [], java.Java(Path("/java"), 25))
    assert set(new) - set(old) == {
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
    }


@pytest.mark.parametrize(
    ("version", "feature"), [("25.0.2", 25), ("17", 17), ("1.8.0_412", 1), ("26-ea", 26)]
)
def test_the_feature_version_is_read(version: str, feature: int) -> None:
    assert java.feature_version(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n') == feature


def test_java_home_is_preferred_and_checked(tmp_path: Path) -> None:
    with pytest.raises(java.KafkaSetupError, match="No Java at"):
        java.find_java({"JAVA_HOME": str(tmp_path)})
    (tmp_path / "release").write_text('JAVA_VERSION="11.0.2"\n')
    with pytest.raises(java.KafkaSetupError, match="Java 17 or newer"):
        java.find_java({"JAVA_HOME": str(tmp_path)})
    (tmp_path / "release").write_text('JAVA_VERSION="21.0.2"\n')
    assert java.find_java({"JAVA_HOME": str(tmp_path)}) == (tmp_path / "bin" / "java", 21)
