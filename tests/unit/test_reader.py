"""The analysts' user: what ClickHouse is told, and what nobody is told."""

import hashlib
import traceback

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from openbat.settings import Settings, SettingsError, load
from sinks.reader import LIMITS, PROFILE, USER, ReaderError, make_reader, reader_statements
from tests.stack import ROOT

PASSWORD = "correct-horse"
VARIABLE = "OPENBAT_CLICKHOUSE_READER_PASSWORD"


class FakeClickHouse:
    """Takes statements, up to the one that contains `refuses`."""

    def __init__(self, refuses: str = "", says: str = "") -> None:
        self.commands: list[str] = []
        self._refuses, self._says = refuses, says

    def command(self, cmd: str) -> None:
        self.commands.append(cmd)
        if self._refuses and self._refuses in cmd:
            raise DatabaseError(f"{self._says} {cmd}\nmore")


def test_only_a_salted_hash_of_the_password_is_sent() -> None:
    client = FakeClickHouse()
    make_reader(client, PASSWORD)
    profile, create, alter, granted = client.commands
    salt = create.split("SALT '")[1].split("'")[0]
    digest = hashlib.sha256(f"{PASSWORD}{salt}".encode()).hexdigest()
    identified = f"IDENTIFIED WITH sha256_hash BY '{digest}' SALT '{salt}'"
    assert create == f"CREATE USER IF NOT EXISTS {USER} {identified} SETTINGS PROFILE '{PROFILE}'"
    assert alter == f"ALTER USER {USER} {identified}"
    assert granted == f"GRANT openbat_reader TO {USER}"
    assert profile.startswith(f"CREATE SETTINGS PROFILE IF NOT EXISTS {PROFILE} SETTINGS readonly")
    assert PASSWORD not in "".join(client.commands)
    other = FakeClickHouse()
    make_reader(other, PASSWORD)
    assert salt not in other.commands[1]


@pytest.mark.parametrize("refuses", ["CREATE SETTINGS", "CREATE USER", "ALTER USER", "GRANT"])
def test_a_refusal_says_why_and_shows_no_hash(refuses: str) -> None:
    client = FakeClickHouse(refuses, "Syntax error at")
    with pytest.raises(ReaderError) as refused:
        make_reader(client, PASSWORD)
    told = "".join(traceback.format_exception(refused.value))
    assert "ClickHouse refuses: Syntax error at" in str(refused.value)
    assert VARIABLE in str(refused.value)
    for secret in (PASSWORD, *(client.commands[-1].split("'")[1::2])):
        assert secret == PROFILE or secret not in told
    assert refused.value.__context__ is None
    assert refuses in client.commands[-1]


def test_the_password_is_not_shown_by_the_settings() -> None:
    settings = load({VARIABLE: PASSWORD})
    assert settings.clickhouse_reader_password == PASSWORD
    assert PASSWORD not in repr(settings)
    assert Settings().clickhouse_reader_password is None


@pytest.mark.parametrize("wrong", ["secret", "secret secret secret", "sécret-sécret", "s" * 256])
def test_a_password_that_is_refused_is_not_repeated(wrong: str) -> None:
    with pytest.raises(SettingsError, match=VARIABLE) as refused:
        load({VARIABLE: wrong})
    assert wrong not in str(refused.value)


def test_the_document_has_the_statements() -> None:
    """Without what is for repeats: the limits that bind, the user and the role."""
    text = " ".join((ROOT / "docs" / "analysts.md").read_text().split())
    _, create, _, granted = reader_statements(PASSWORD, "0" * 32)
    for name, value in LIMITS.items():
        if "external" not in name:
            assert f"{name} = {value}" in text
    assert f"{granted};" in text
    assert create.split(" BY ")[0].replace("IF NOT EXISTS ", "") in text
