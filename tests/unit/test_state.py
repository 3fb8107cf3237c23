"""local.json counts for as long as somebody runs the stack that it describes."""

import json
from pathlib import Path

import msgspec
import pytest

from openbat.local import state

STATE = state.LocalState("http://gateway", "http://clickhouse", "kafka:9092", "id", "key", [])


def test_a_stack_that_was_killed_is_not_found(tmp_path: Path) -> None:
    assert state.read(tmp_path) is None
    with state.locked(tmp_path):
        state.write(tmp_path, STATE)
        assert state.read(tmp_path) == STATE
        with pytest.raises(BlockingIOError), state.locked(tmp_path):
            pass
    assert state.read(tmp_path) is None
    state.path(tmp_path).unlink()
    assert state.read(tmp_path) is None


def test_what_an_older_release_wrote_can_be_read(tmp_path: Path) -> None:
    older = json.loads(msgspec.json.encode(STATE))
    del older["pid"]
    older["processes"] = [{"role": "kafka", "pid": 7, "metrics_url": None}]
    state.path(tmp_path).write_text(json.dumps(older))
    with state.locked(tmp_path):
        found = state.read(tmp_path)
    assert found is not None
    assert (found.pid, found.processes) == (None, [state.Process("kafka", 7)])
