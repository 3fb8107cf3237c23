"""TLS and passwords: towards a broker that asks for them, and ClickHouse behind https."""

import contextlib
import dataclasses
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from openbat.clickhouse import ClickHouseUnreachableError, clickhouse_client
from openbat.connection import UnreachableError, connection_of
from openbat.kafka import captures_partitions, read_registry
from openbat.settings import load
from tests.secured import PASSWORD, SCRAM, USER, Authority, SecuredBroker, tls_terminator
from tests.stack import OPENBAT, Stack, free_port, process, wait_until

START_SECONDS = 60


@dataclasses.dataclass
class Secured:
    """Servers that ask for TLS, and what a client of theirs needs to be set."""

    authority: Authority
    other: Authority
    broker: SecuredBroker
    clickhouse_port: int
    data_dir: Path

    def environment(self, protocol: str = "SASL_SSL", **others: str) -> dict[str, str]:
        own: dict[str, str] = {}
        if protocol.endswith("SSL"):
            own["OPENBAT_KAFKA_CA_FILE"] = str(self.authority.ca_file)
        if protocol == "SSL":
            own["OPENBAT_KAFKA_CERT_FILE"] = str(self.authority.issue("client"))
        else:
            own |= {"OPENBAT_KAFKA_USERNAME": USER, "OPENBAT_KAFKA_PASSWORD": PASSWORD}
        return {
            "OPENBAT_DATA_DIR": str(self.data_dir),
            "OPENBAT_KAFKA_BOOTSTRAP": self.broker.bootstraps[protocol],
            "OPENBAT_KAFKA_SECURITY_PROTOCOL": protocol,
            "OPENBAT_CLICKHOUSE_URL": f"https://127.0.0.1:{self.clickhouse_port}",
            "OPENBAT_CLICKHOUSE_CA_FILE": str(self.authority.ca_file),
            "OPENBAT_PARTITIONS": "2",
            "OPENBAT_REPLICATION_FACTOR": "1",
            **own,
            **others,
        }

    def openbat(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return Stack(self.data_dir, environment).openbat(*arguments, check=False)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    authority, other = Authority(directory / "ours"), Authority(directory / "others")
    broker = SecuredBroker(directory / "kafka", authority)
    port = free_port()
    engine = {
        **Stack(directory, {}).environment,
        "OPENBAT_DATA_DIR": str(directory / "engine"),
        "OPENBAT_CLICKHOUSE_PORT": str(port),
    }
    with (
        broker.running(),
        process([*OPENBAT, "local-clickhouse"], engine, directory / "engine.log"),
        tls_terminator(port, authority.issue("127.0.0.1")) as tls_port,
    ):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), START_SECONDS, "the engine")
        found = Secured(authority, other, broker, tls_port, directory / "data")
        made = found.openbat("migrate", **found.environment())
        assert made.returncode == 0, made.stderr
        yield found


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url).status_code == 200
    return False


def test_a_capture_is_answered_exactly_and_arrives_over_tls(
    secured: Secured, tmp_path: Path
) -> None:
    """Gateway and both workers, with user and password over TLS."""
    environment = secured.environment()
    key = secured.openbat("chatbots", "create", "secured", **environment).stdout.strip()
    stack = Stack(secured.data_dir, environment | {"OPENBAT_PORT": str(free_port())})
    url = f"http://127.0.0.1:{stack.environment['OPENBAT_PORT']}"
    body = {
        "conversationId": "over tls",
        "messages": [{"id": f"{at % 3}", "role": "user", "content": "x"} for at in range(5)],
    }
    with contextlib.ExitStack() as exits:
        for command in (["gateway"], ["worker", "conversations"], ["worker", "clickhouse"]):
            log = tmp_path / f"{command[-1]}.log"
            exits.enter_context(process([*OPENBAT, *command], stack.environment, log))
        wait_until(lambda: answers(f"{url}/readyz"), START_SECONDS, "the gateway")
        headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=30"}
        for stored in (3, 0):
            answer = httpx.post(f"{url}/api/v1/capture", json=body, headers=headers, timeout=40)
            assert answer.status_code == 200, answer.text
            assert answer.json()["messagesStored"] == stored
            assert answer.json()["warnings"] == []

        def rows() -> str:
            return httpx.post(
                f"https://127.0.0.1:{secured.clickhouse_port}",
                content="SELECT count() FROM openbat.messages",
                verify=ssl.create_default_context(cafile=secured.authority.ca_file),
            ).text.strip()

        wait_until(lambda: rows() == "3", START_SECONDS, "the rows")
    for log in tmp_path.glob("*.log"):
        assert PASSWORD not in log.read_text()
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [("SASL_SSL", SCRAM), ("SASL_PLAINTEXT", "PLAIN"), ("SASL_PLAINTEXT", SCRAM), ("SSL", "PLAIN")],
)
async def test_every_other_way_in(secured: Secured, protocol: str, mechanism: str) -> None:
    """By SCRAM, by password alone, by client certificate."""
    environment = secured.environment(protocol, OPENBAT_KAFKA_SASL_MECHANISM=mechanism)
    assert await captures_partitions(connection_of(load(environment))) == 2


@pytest.mark.parametrize(
    ("protocol", "changed", "said"),
    [
        ("SASL_SSL", {"OPENBAT_KAFKA_CA_FILE": "others"}, "OPENBAT_KAFKA_CA_FILE"),
        ("SASL_SSL", {"OPENBAT_KAFKA_BOOTSTRAP": "localhost"}, "Hostname mismatch"),
        ("SASL_SSL", {"OPENBAT_KAFKA_PASSWORD": "wrong-battery"}, "OPENBAT_KAFKA_PASSWORD"),
        ("SASL_SSL", {"OPENBAT_KAFKA_USERNAME": "nobody"}, "OPENBAT_KAFKA_USERNAME"),
        (
            "SASL_SSL",
            {"OPENBAT_KAFKA_SASL_MECHANISM": SCRAM, "OPENBAT_KAFKA_PASSWORD": "wrong-battery"},
            "OPENBAT_KAFKA_PASSWORD",
        ),
        (
            "SASL_PLAINTEXT",
            {"OPENBAT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"},
            "OPENBAT_KAFKA_SASL_MECHANISM",
        ),
        ("SSL", {"OPENBAT_KAFKA_CERT_FILE": ""}, "OPENBAT_KAFKA_CERT_FILE"),
        (
            "SASL_PLAINTEXT",
            {
                "OPENBAT_KAFKA_SECURITY_PROTOCOL": "",
                "OPENBAT_KAFKA_USERNAME": "",
                "OPENBAT_KAFKA_PASSWORD": "",
            },
            "OPENBAT_KAFKA_SECURITY_PROTOCOL",
        ),
    ],
)
async def test_what_the_broker_refuses_is_one_sentence(
    secured: Secured, protocol: str, changed: dict[str, str], said: str
) -> None:
    meant = {
        "others": str(secured.other.ca_file),
        "localhost": secured.broker.bootstraps[protocol].replace("127.0.0.1", "localhost"),
    }
    changed = {name: meant.get(value, value) for name, value in changed.items()}
    connection = connection_of(load(secured.environment(protocol, **changed)))
    for task in (captures_partitions, read_registry):
        with pytest.raises(UnreachableError, match=rf"^Kafka does not answer at .*{said}") as error:
            await task(connection)
        assert "wrong-battery" not in str(error.value)
        assert PASSWORD not in str(error.value)


def test_a_command_that_is_refused_says_so(secured: Secured) -> None:
    environment = secured.environment(OPENBAT_KAFKA_PASSWORD="wrong-battery")
    refused = secured.openbat("chatbots", "list", **environment)
    assert refused.returncode == 1
    sentence = refused.stderr.strip().splitlines()[-1]
    assert sentence.startswith("openbat: Kafka does not answer at 127.0.0.1:")
    assert "OPENBAT_KAFKA_PASSWORD" in sentence
    for unwanted in ("Traceback", "wrong-battery", PASSWORD):
        assert unwanted not in refused.stderr


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        (("gateway",), "OPENBAT_KAFKA_PASSWORD"),
        (("worker", "conversations"), "OPENBAT_KAFKA_CA_FILE"),
        (("worker", "clickhouse"), "OPENBAT_CLICKHOUSE_CA_FILE"),
    ],
)
def test_a_process_says_what_it_waits_for(
    secured: Secured, tmp_path: Path, command: tuple[str, ...], variable: str
) -> None:
    wrong = {variable: str(secured.other.ca_file) if "FILE" in variable else "wrong-battery"}
    environment = secured.environment(**wrong, OPENBAT_PORT="0")
    log = tmp_path / "log"
    with process([*OPENBAT, *command], Stack(tmp_path, environment).environment, log) as running:
        wait_until(lambda: variable in log.read_text(), START_SECONDS, "the reason")
        assert running.poll() is None
    for unwanted in ("Traceback", "wrong-battery", PASSWORD):
        assert unwanted not in log.read_text()


def test_a_clickhouse_that_is_not_trusted_is_refused(secured: Secured) -> None:
    url = f"https://127.0.0.1:{secured.clickhouse_port}"
    for ca_file in (secured.other.ca_file, None):
        with pytest.raises(ClickHouseUnreachableError, match="OPENBAT_CLICKHOUSE_CA_FILE"):
            clickhouse_client(url, ca_file)
    environment = secured.environment(OPENBAT_CLICKHOUSE_CA_FILE=str(secured.other.ca_file))
    refused = secured.openbat("migrate", **environment)
    assert refused.returncode == 1
    assert "OPENBAT_CLICKHOUSE_CA_FILE" in refused.stderr.strip().splitlines()[-1]
    assert "Traceback" not in refused.stderr
