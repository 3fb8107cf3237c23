"""Each role says whether it is alive and ready, and what is missing where it is not."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import health as gateway_health
from openbat import clickhouse_writer, worker_health
from openbat.health import ALIVE, METRICS, READY
from tests.stack import OPENBAT, Stack, free_port, local_stack, process, wait_until

WORKERS = ("conversations", "clickhouse", "analysis")
SOON_SECONDS = 15.0
BACK_SECONDS = 60.0
KAFKA = "Kafka does not answer."
CLICKHOUSE = "ClickHouse does not answer."

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One partition, so that one of the conversations workers has none."""
    with local_stack(
        tmp_path_factory.mktemp("health"),
        OPENBAT_PARTITIONS="1",
        OPENBAT_CONVERSATIONS_WORKERS="2",
        OPENBAT_ANALYSIS_WORKERS="1",
    ) as stack:
        yield stack


def get(url: str, seconds: float = 20) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=seconds)


def urls(stack: Stack, *roles: str) -> list[str]:
    """Return where the processes of these roles are asked for their health."""
    return [
        found["metrics_url"].removesuffix(METRICS)
        for found in stack.state["processes"]
        if found["role"] in roles
    ]


def reasons(url: str) -> list[str]:
    """Return why a process is not ready, nothing where it is."""
    answer = get(f"{url}{READY}")
    body: dict[str, Any] = answer.json()
    if answer.status_code == 200:
        assert body == {"ok": True}
        return []
    assert (answer.status_code, body["ok"]) == (503, False)
    assert body["reasons"]
    return [str(reason) for reason in body["reasons"]]


def assert_ready(stack: Stack) -> None:
    for url in (*urls(stack, *WORKERS), stack.gateway_url):
        wait_until(lambda url=url: reasons(url) == [], BACK_SECONDS, f"{url} to be ready")


def assert_alive(stack: Stack) -> None:
    for url in (*urls(stack, *WORKERS), stack.gateway_url):
        answer = get(f"{url}{ALIVE}")
        assert (answer.status_code, answer.json()) == (200, {"ok": True})


@contextlib.contextmanager
def stopped(stack: Stack, role: str) -> Iterator[None]:
    """Have a process of a role stand still, as if the network to it were silent."""
    pid = stack.pids(role)[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def post(stack: Stack, url: str) -> int:
    body = {"conversationId": "health", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {stack.state['api_key']}"}
    return httpx.post(
        f"{url}/api/v1/capture", json=body, headers=headers, trust_env=False, timeout=20
    ).status_code


def test_every_role_is_alive_and_ready_and_serves_its_metrics(running: Stack) -> None:
    assert_ready(running)
    assert_alive(running)
    found = {each["role"]: each["metrics_url"] for each in running.state["processes"]}
    assert found["kafka"] is None
    assert found["clickhouse-server"] is None
    ours = urls(running, *WORKERS, "gateway")
    assert len(set(ours)) == len(ours) == 5
    for url in ours:
        assert "openbat_ready 1.0" in get(f"{url}{METRICS}").text.splitlines()
    # Who has a partition is said by the lag; the other one is ready all the same.
    texts = [get(f"{url}{METRICS}").text for url in urls(running, "conversations")]
    assert sorted("openbat_lag_records{" in text for text in texts) == [False, True]


def test_without_clickhouse_its_worker_alone_is_not_ready(running: Stack) -> None:
    assert_ready(running)
    (worker,) = urls(running, "clickhouse")
    with stopped(running, "clickhouse-server"):
        wait_until(lambda: CLICKHOUSE in reasons(worker), SOON_SECONDS, "the reason")
        assert_alive(running)
        for url in (*urls(running, "conversations", "analysis"), running.gateway_url):
            assert reasons(url) == []
    assert_ready(running)


def test_inserts_that_clickhouse_refuses_are_a_reason(running: Stack) -> None:
    assert_ready(running)
    (worker,) = urls(running, "clickhouse")
    alter = "ALTER TABLE openbat.message_rows"
    full = f"{alter} MODIFY SETTING min_free_disk_bytes_to_perform_insert={1 << 60}"
    mended = f"{alter} RESET SETTING min_free_disk_bytes_to_perform_insert"
    clickhouse = str(running.state["clickhouse_url"])
    assert httpx.post(clickhouse, content=full, trust_env=False).status_code == 200
    try:
        assert post(running, running.gateway_url) == 200
        said = "ClickHouse has not taken inserts into openbat.message_rows for "
        wait_until(
            lambda: any(reason.startswith(said) for reason in reasons(worker)),
            SOON_SECONDS,
            "the reason",
        )
        assert CLICKHOUSE not in reasons(worker)
        assert_alive(running)
    finally:
        assert httpx.post(clickhouse, content=mended, trust_env=False).status_code == 200
    assert_ready(running)


def test_without_kafka_nobody_is_ready_and_everybody_lives(running: Stack) -> None:
    assert_ready(running)
    with stopped(running, "kafka"):
        for url in (*urls(running, *WORKERS), running.gateway_url):
            wait_until(lambda url=url: KAFKA in reasons(url), SOON_SECONDS, f"{url} to tell")
        assert_alive(running)
        body = get(f"{running.gateway_url}{READY}").json()
        assert body["error"] == {"code": "not_ready", "message": KAFKA}
    assert_ready(running)


def test_a_worker_that_stands_still_answers_nobody(running: Stack) -> None:
    (worker,) = urls(running, "analysis")
    with stopped(running, "analysis"), pytest.raises(httpx.ReadTimeout):
        get(f"{worker}{ALIVE}", seconds=2)
    assert_ready(running)


def test_a_worker_that_is_replaced_says_where_its_metrics_are(running: Stack) -> None:
    (pid,) = running.pids("clickhouse")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: running.pids("clickhouse") != [pid], SOON_SECONDS, "a new one")

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return reasons(urls(running, "clickhouse")[0]) == []
        return False

    wait_until(answers, BACK_SECONDS, "the new one to be ready")


@pytest.mark.parametrize(
    ("role", "away", "reason"),
    [
        ("conversations", "OPENBAT_KAFKA_BOOTSTRAP", worker_health.STARTING),
        ("clickhouse", "OPENBAT_CLICKHOUSE_URL", clickhouse_writer.STARTING),
    ],
)
def test_a_worker_that_can_not_start_says_what_it_waits_for(
    running: Stack, tmp_path: Path, role: str, away: str, reason: str
) -> None:
    port = free_port()
    nowhere = f"127.0.0.1:{free_port()}"
    environment = {
        **running.environment,
        "OPENBAT_DATA_DIR": str(tmp_path / "data"),
        "OPENBAT_METRICS_PORT": str(port),
        "OPENBAT_KAFKA_BOOTSTRAP": str(running.state["kafka_bootstrap"]),
        away: f"http://{nowhere}" if away.endswith("URL") else nowhere,
    }
    url = f"http://127.0.0.1:{port}"

    def tells() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return reasons(url) == [reason]
        return False

    with process([*OPENBAT, "worker", role], environment, tmp_path / "log"):
        wait_until(tells, BACK_SECONDS, "the reason")
        assert get(f"{url}{ALIVE}").status_code == 200


def test_a_gateway_that_is_to_end_is_unready_first_and_serves_on(
    running: Stack, tmp_path: Path
) -> None:
    port = free_port()
    environment = {
        **running.environment,
        "OPENBAT_PORT": str(port),
        "OPENBAT_KAFKA_BOOTSTRAP": str(running.state["kafka_bootstrap"]),
        "OPENBAT_UNREADY_SECONDS": "5",
    }
    url = f"http://127.0.0.1:{port}"

    def answers(expected: list[str]) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return reasons(url) == expected
        return False

    with process([*OPENBAT, "gateway"], environment, tmp_path / "log") as gateway:
        wait_until(lambda: answers([]), BACK_SECONDS, "the gateway")
        os.kill(gateway.pid, signal.SIGTERM)
        wait_until(lambda: answers([gateway_health.STOPPING]), 4, "it to say that it stops")
        assert get(f"{url}{ALIVE}").status_code == 200
        assert post(running, url) == 200
        assert "openbat_ready 0.0" in get(f"{url}{METRICS}").text.splitlines()
        wait_until(lambda: gateway.poll() is not None, SOON_SECONDS, "its end")
        with pytest.raises(httpx.ConnectError):
            get(f"{url}{ALIVE}")
