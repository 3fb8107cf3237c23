"""What a process can't start without is waited for."""

import pytest

from openbat.patience import until_it_answers


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
