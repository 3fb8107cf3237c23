"""How Kafka is reached: the one struct that every client is made from."""

import ssl
from pathlib import Path

import pytest

from openbat.clickhouse import clickhouse_client
from openbat.command import located
from openbat.connection import Connection, connection_of
from openbat.local import state
from openbat.settings import Settings, SettingsError
from openbat.worker_role import credentials

TLS = ssl.create_default_context()
SASL = ("SCRAM-SHA-512", "openbat", "secret")


@pytest.mark.parametrize(
    ("connection", "protocol"),
    [
        (Connection("k:1"), "PLAINTEXT"),
        (Connection("k:1", TLS), "SSL"),
        (Connection("k:1", None, SASL), "SASL_PLAINTEXT"),
        (Connection("k:1", TLS, SASL), "SASL_SSL"),
    ],
)
def test_faust_is_given_what_aiokafka_is_given(connection: Connection, protocol: str) -> None:
    options = connection.options()
    assert options["security_protocol"] == connection.protocol == protocol
    assert options["ssl_context"] is connection.tls
    given = credentials(connection)
    if protocol == "PLAINTEXT":
        assert given is None
        return
    assert given is not None
    assert given.protocol.value == protocol
    if connection.sasl is not None:
        assert (given.mechanism.value, given.username, given.password) == SASL
        assert given.ssl_context is connection.tls


def test_a_password_is_not_shown() -> None:
    connection = Connection("k:1", TLS, SASL)
    for shown in (
        repr(connection),
        str(connection),
        f"{connection}",
        repr(credentials(connection)),
    ):
        assert "secret" not in shown


def test_settings_say_how_to_connect() -> None:
    assert connection_of(Settings(kafka_bootstrap="k:1")) == Connection("k:1")
    found = connection_of(
        Settings(
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_mechanism=SASL[0],
            kafka_username=SASL[1],
            kafka_password=SASL[2],
        )
    )
    assert found.sasl == SASL
    assert found.tls is not None
    assert found.tls.verify_mode is ssl.CERT_REQUIRED
    assert found.tls.check_hostname


def test_a_file_that_cant_be_used_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("nothing")
    for path in (no_pem, tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=r"^OPENBAT_KAFKA_CA_FILE: .*PEM$"):
            connection_of(Settings(kafka_security_protocol="SSL", kafka_ca_file=path))
        with pytest.raises(SettingsError, match=r"^OPENBAT_KAFKA_CERT_FILE, .*PEM"):
            connection_of(Settings(kafka_security_protocol="SSL", kafka_cert_file=path))
        with pytest.raises(SettingsError, match=r"^OPENBAT_CLICKHOUSE_CA_FILE: .*PEM$"):
            clickhouse_client("https://127.0.0.1:1", path)


def test_a_running_local_stack_is_reached_without_security(tmp_path: Path) -> None:
    """Its servers listen on this machine alone; the settings are meant for others."""
    found = state.LocalState("http://g:1", "http://c:2", "k:1", "id", "key", [])
    state.write(tmp_path, found)
    elsewhere = Settings(
        data_dir=tmp_path,
        kafka_bootstrap="far:1",
        kafka_security_protocol="SASL_SSL",
        kafka_username=SASL[1],
        kafka_password=SASL[2],
        clickhouse_url="https://far:2",
        clickhouse_ca_file=tmp_path / "ca.pem",
    )
    with state.locked(tmp_path):
        here = located(elsewhere)
    assert connection_of(here) == Connection("k:1")
    assert (here.clickhouse_url, here.clickhouse_ca_file) == ("http://c:2", None)
