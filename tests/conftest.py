"""One real stack for all tests that need one, started when the first of them does."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.report import Report
from tests.stack import CONTAINERS, Stack, kind, local_stack

REPORT = pytest.StashKey[dict[str, Report]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="at full length, as `make outages`, `make soak` and the like do; writes docs/reports",
    )


def pytest_report_header() -> str:
    return f"stack: {kind()}"


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether tests run at full length; else each keeps within a minute."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Report:
    """Return the report of the module's folder, written at the end of a full run."""
    reports = request.config.stash.setdefault(REPORT, {})
    name = request.path.parent.name
    return reports.setdefault(name, Report(name, f"make {name}"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.getoption("--full"):
        for report in config.stash.get(REPORT, {}).values():
            report.write()
            terminalreporter.write(f"\n{report.table()}")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two gateways and two workers of each role."""
    data_dir: Path = tmp_path_factory.mktemp("stack")
    if kind() == CONTAINERS:
        from tests.containers import container_stack

        with container_stack(
            data_dir, {"clickhouse": 2, "conversations": 2, "gateway": 2}
        ) as running:
            yield running
        return
    with local_stack(
        data_dir,
        OPENBAT_GATEWAYS="2",
        OPENBAT_CONVERSATIONS_WORKERS="2",
        OPENBAT_CLICKHOUSE_WORKERS="2",
    ) as running:
        yield running


@pytest.fixture(scope="session")
def demo(stack: Stack) -> Iterator[httpx.Client]:
    """Return a client of the capture API that has the key of `demo`."""
    headers = {"Authorization": f"Bearer {stack.state['api_key']}"}
    with httpx.Client(base_url=stack.gateway_url, headers=headers, timeout=30) as client:
        yield client
