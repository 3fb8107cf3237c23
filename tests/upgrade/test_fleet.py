"""A process that ends instead of getting ready fails its test at once, and says why."""

import os
import time
from pathlib import Path

import pytest

from tests.upgrade.fleet import fleet
from tests.upgrade.releases import CURRENT

WAITS, ENDS = ("conversations", 0), ("gateway", 0)


def test_whoever_ends_is_found_while_another_one_is_waited_for(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OPENBAT_DATA_DIR": str(tmp_path),
        "OPENBAT_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }
    begun_at = time.monotonic()
    with (
        fleet(environment, {ENDS: {"OPENBAT_PORT": "many"}}, tmp_path) as processes,
        pytest.raises(AssertionError, match=r"gateway-0-.* ended with 1:\nopenbat: OPENBAT_PORT"),
    ):
        processes.start(CURRENT, WAITS, ENDS)
    assert time.monotonic() - begun_at < 30
