"""compose.yaml asks each role whether it is ready, and lets it end in its own time.

No Docker engine is asked: what the file names is held to the code.
"""

import re
from typing import Any

import msgspec
import pytest
from typer.main import get_group

from openbat import cli, gateway_role, settings, worker_role
from openbat.clickhouse_writer import PING_SECONDS
from openbat.health import LOOK_SECONDS, READY
from openbat.settings import Settings
from streams import app
from streams.progress import ENDS_SECONDS
from tests.stack import ROOT
from tests.unit.test_readme import commands_of

SERVICES: dict[str, dict[str, Any]]
SERVICES = msgspec.yaml.decode((ROOT / "compose.yaml").read_bytes())["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"] == "openbat-capture"}
WORKERS = [name for name, each in OURS.items() if each["command"][0] == "worker"]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def test_every_role_is_there() -> None:
    commands = set(commands_of(get_group(cli.app)))
    assert {" ".join(["openbat", *each["command"]]) for each in OURS.values()} <= commands
    assert {" ".join(OURS[name]["command"]) for name in WORKERS} == {
        "worker conversations",
        "worker clickhouse",
        "worker analysis",
    }
    known = {settings.PREFIX + name.upper() for name in Settings.__struct_fields__}
    for each in OURS.values():
        assert each["environment"].keys() <= known


def test_the_migrations_alone_are_given_the_analysts_password() -> None:
    variable = "OPENBAT_CLICKHOUSE_READER_PASSWORD"
    assert [name for name, each in OURS.items() if variable in each["environment"]] == ["migrate"]
    assert OURS["migrate"]["environment"][variable] == f"${{{variable}:-}}"
    # What is beside it is what every role has.
    assert OURS["migrate"]["environment"].keys() - {variable} == (
        OURS["conversations"]["environment"].keys()
    )
    assert settings.load({variable: ""}).clickhouse_reader_password is None


@pytest.mark.parametrize("name", [*WORKERS, "gateway"])
def test_a_role_is_asked_at_its_own_port_whether_it_is_ready(name: str) -> None:
    asked = OURS[name]["healthcheck"]
    url, patience = re.findall(
        r'"http://127\.0\.0\.1:(\d+/\w+)", timeout=(\d+)', asked["test"][-1]
    )[0]
    port = OURS[name]["environment"]["OPENBAT_METRICS_PORT"] if name in WORKERS else Settings().port
    assert url == f"{port}{READY}"
    assert asked["test"][:3] == ["CMD", "python", "-c"]
    answers = (
        max(LOOK_SECONDS, ENDS_SECONDS + 4 * PING_SECONDS)
        if name in WORKERS
        else gateway_role.READY_TIMEOUT_SECONDS
    )
    assert answers < int(patience) < seconds(asked["timeout"])


@pytest.mark.parametrize("name", [*WORKERS, "gateway"])
def test_a_role_has_the_time_that_it_gives_itself_to_end(name: str) -> None:
    given = seconds(OURS[name]["stop_grace_period"])
    assert given > app.SESSION_SECONDS + worker_role.STOP_SECONDS
    assert given > gateway_role.SHUTDOWN_SECONDS + Settings().produce_timeout_seconds
