"""What a process says while Kafka is away, and when it is told to stop."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.health import STARTING
from tests.stack import OPENBAT, free_port, process, wait_until

WAITS = "not ready; trying again"


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Return the lines that are whole."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if "\n" in line]


def waiting(log: Path) -> bool:
    return log.exists() and WAITS in log.read_text()


def environment_of(tmp_path: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "OPENBAT_DATA_DIR": str(tmp_path),
        "OPENBAT_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        **more,
    }


@pytest.mark.parametrize("role", ["conversations", "clickhouse"])
def test_a_worker_without_kafka_warns_and_ends_when_told(tmp_path: Path, role: str) -> None:
    log = tmp_path / "log"
    with process([*OPENBAT, "worker", role], environment_of(tmp_path), log) as worker:
        wait_until(lambda: waiting(log), 60, "it waits for Kafka")
        worker.stop()
        assert worker.poll() == 0
    first, *_, last = lines_of(log)
    assert (first["event"], first["level"], first["attempts"]) == (WAITS, "warning", 1)
    assert "127.0.0.1:1" in first["error"]
    assert last["event"] == "stopped"
    assert {line["level"] for line in lines_of(log)} == {"warning", "info"}


def test_a_gateway_without_kafka_warns_and_ends_when_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    own, metrics = free_port(), free_port()
    ports = {"OPENBAT_PORT": str(own), "OPENBAT_METRICS_PORT": str(metrics)}

    def answer(port: int, path: str) -> tuple[int, list[str]] | None:
        with contextlib.suppress(httpx.TransportError):
            found = httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
            return found.status_code, found.json().get("reasons", [])
        return None

    with process([*OPENBAT, "gateway"], environment_of(tmp_path, **ports), log) as gateway:
        wait_until(lambda: answer(own, "/readyz") == (503, [STARTING]), 60, "it serves")
        assert answer(metrics, "/readyz") == (503, [STARTING])
        assert answer(metrics, "/healthz") == (200, [])
        gateway.stop()
    events = [line["event"] for line in lines_of(log)]
    assert events[0] == WAITS
    assert events[-2:] == ["stopping", "stopped"]
    assert {line["level"] for line in lines_of(log)} == {"warning", "info"}
