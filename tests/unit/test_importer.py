"""`openbat import`: what an answer counts as, and what a person is told."""

import json
import logging
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.capture import PENDING
from openbat import cli, importer
from tests.faulty import Answer, faulty_gateway

MESSAGES = 3


def stored(messages: int, *warnings: str) -> Answer:
    answer = {
        "ok": True,
        "conversationId": str(uuid.UUID(int=1)),
        "messagesStored": messages,
        "analysisQueued": False,
        "warnings": list(warnings),
    }
    return Answer(200, answer, {})


def run(tmp_path: Path, *answers: Answer, options: tuple[str, ...] = ()) -> Result:
    """Import a line for each answer."""
    capture = {"conversationId": "c", "messages": [{"role": "user", "content": "a"}] * MESSAGES}
    file = tmp_path / "lines.jsonl"
    file.write_text(f"{json.dumps(capture)}\n" * len(answers))
    try:
        with faulty_gateway(*answers) as gateway:
            return CliRunner().invoke(
                cli.app,
                ["import", str(file), "--url", gateway.url, "--api-key", "secret", *options],
                env={"OPENBAT_DATA_DIR": str(tmp_path)},
            )
    finally:
        logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "CONCURRENCY", 1)


PROVISIONAL = (stored(MESSAGES, "Custom field 'x' not in schema", PENDING), stored(2), stored(0))


def test_what_nobody_counted_in_time_is_neither_stored_nor_a_duplicate(tmp_path: Path) -> None:
    done = run(tmp_path, *PROVISIONAL)
    assert (done.exit_code, done.stdout) == (
        0, "captures=3 stored=2 duplicates=4 provisional=3 failed=0\n",
    )  # fmt: skip
    assert "durable, but not counted in time" in done.stderr
    assert json.loads(run(tmp_path, *PROVISIONAL, options=("--json",)).stdout) == {
        "captures": 3, "stored": 2, "duplicates": 4, "provisional": 3, "failed": 0,
    }  # fmt: skip


def test_the_summary_is_printed_once(tmp_path: Path) -> None:
    done = run(tmp_path, stored(MESSAGES), stored(1, "Custom field 'x' not in schema"))
    assert done.stdout == "captures=2 stored=4 duplicates=2 provisional=0 failed=0\n"
    assert "captures=" not in done.stderr


def test_an_import_that_stops_says_how_far_it_came(tmp_path: Path) -> None:
    refused: dict[str, Any] = {"ok": False, "error": {"code": "unauthorized", "message": "No."}}
    done = run(tmp_path, stored(MESSAGES), Answer(401, refused, {}))
    assert isinstance(done.exception, importer.ImportStoppedError)
    assert "captures=1 stored=3" in done.stderr
