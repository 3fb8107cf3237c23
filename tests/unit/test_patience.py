"""What a process can't start without is waited for, and the log is not filled meanwhile."""

import logging

import pytest
from structlog.testing import capture_logs

from openbat import patience
from openbat.patience import TOLD_AGAIN_SECONDS, until_it_answers


class AwayError(Exception):
    """May pass."""


async def test_it_is_called_until_it_answers() -> None:
    failures = iter([AwayError(), AwayError()])

    async def connect() -> str:
        for failure in failures:
            raise failure
        return "connected"

    assert await until_it_answers("it", (AwayError,), connect) == "connected"


async def test_what_does_not_pass_is_raised() -> None:
    async def connect() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await until_it_answers("it", (AwayError,), connect)


async def told(monkeypatch: pytest.MonkeyPatch, *steps: tuple[float, str]) -> list[tuple[str, int]]:
    """Return the errors that are told and at which attempt, for those that come at these times."""
    monkeypatch.setattr(patience, "LONGEST_WAIT_SECONDS", 0.001)
    coming = iter(steps)
    now = 0.0

    async def connect() -> None:
        nonlocal now
        for at, error in coming:
            now = at
            raise AwayError(error)

    with capture_logs() as lines:
        await until_it_answers("it", (AwayError,), connect, lambda: now)
    assert {line["log_level"] for line in lines} == {"warning"}
    return [(line["error"], line["attempts"]) for line in lines]


async def test_an_error_is_told_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TOLD_AGAIN_SECONDS == 10
    steps = [(at, "away") for at in (0.0, 1.0, 9.9, 10.0, 11.0, 20.0)]
    assert await told(monkeypatch, *steps) == [("away", 1), ("away", 4), ("away", 6)]


async def test_another_error_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(0.0, "away"), (1.0, "no topics"), (2.0, "away"), (3.0, "no topics"), (10.5, "away")]
    assert await told(monkeypatch, *steps) == [("away", 1), ("no topics", 2), ("away", 5)]


@pytest.mark.parametrize(("what", "heard"), [("Kafka", []), ("ClickHouse", ["while waiting"])])
async def test_kafkas_client_says_nothing_of_its_own(
    caplog: pytest.LogCaptureFixture, what: str, heard: list[str]
) -> None:
    library = logging.getLogger("aiokafka.client")

    async def connect() -> None:
        library.error("while waiting")

    await until_it_answers(what, (AwayError,), connect)
    library.error("later")
    assert caplog.messages == [*heard, "later"]
