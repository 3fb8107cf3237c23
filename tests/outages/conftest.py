"""One rig for all tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.outages.rig import Rig, running


@pytest.fixture(scope="package")
async def rig(tmp_path_factory: pytest.TempPathFactory, full: bool) -> AsyncIterator[Rig]:
    async with running(tmp_path_factory.mktemp("rig"), 5.0 if full else 2.0) as made:
        yield made
