"""A stack of its own, and how hard is tried: a minute in all, or half an hour with --full."""

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from tests.conftest import REPORT
from tests.fuzz.cases import Cases
from tests.fuzz.neighbours import Neighbours
from tests.report import Report
from tests.stack import Stack, local_stack

TIMEOUT_SECONDS = 3
"""What the stack's gateway gives headers and bodies."""

WANTED = 100_000
"""Cases of a full run."""

Effort = Callable[[int, int], settings]


@pytest.fixture(scope="module", autouse=True)
def _without_logs() -> Iterator[None]:
    """Keep quiet of the many dead letters: progress would drown in them."""
    only = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=only)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="package")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a stack that other tests need not share: what is sent here stays in its topics."""
    with local_stack(
        tmp_path_factory.mktemp("hostile"),
        OPENBAT_CONVERSATIONS_WORKERS="2",
        OPENBAT_BODY_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS),
    ) as running:
        yield running


@pytest.fixture
def neighbours(
    hostile: Stack, report: Report, request: pytest.FixtureRequest
) -> Iterator[Neighbours]:
    """Return good clients that post meanwhile; none of what they posted may be lost."""
    with Neighbours(hostile) as posting:
        before = hostile.state["processes"]
        yield posting
    what = request.node.name.removeprefix("test_").replace("_", " ")
    posting.assert_all_is_there(report, what)
    assert hostile.state["processes"] == before, "a process died"


@pytest.fixture(scope="session")
def cases(pytestconfig: pytest.Config, full: bool) -> Iterator[Cases]:
    """Return what counts the cases of the run."""
    counted = Cases()
    yield counted
    if full:
        pytestconfig.stash[REPORT]["fuzz"].add(
            "cases in all", counted.total, bound=f"at least {WANTED}", holds=counted.total >= WANTED
        )


@pytest.fixture(scope="session")
def effort(full: bool) -> Effort:
    """Return settings for so many cases in the short form, and so many in the full one.

    The short form tries the same cases every time: a gate is no place for finds by luck.
    """

    def chosen(short: int, long: int) -> settings:
        return settings(
            max_examples=long if full else short,
            deadline=None,
            database=None,
            derandomize=not full,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )

    return chosen
