"""What a gateway and real workers export while captures go through them."""

import contextlib
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas import topics
from tests.stack import OPENBAT, Stack, free_port, local_stack, process, wait_until

CONVERSATIONS = 64
"""Enough for each worker's partitions to have some."""

Samples = dict[str, list[tuple[dict[str, str], float]]]


def scraped(url: str) -> Samples:
    """Return the samples by name; none where nobody answers yet."""
    with contextlib.suppress(httpx.HTTPError):
        text = httpx.get(url, trust_env=False, timeout=30).text
        samples: Samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return samples
    return {}


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(value for found, value in samples.get(name, []) if labels.items() <= found.items())


def post_all(stack: Stack, key: str) -> None:
    with httpx.Client(base_url=stack.gateway_url, trust_env=False, timeout=30) as client:
        for number in range(CONVERSATIONS):
            answer = client.post(
                "/api/v1/capture",
                headers={"Authorization": f"Bearer {key}"},
                json={
                    "conversationId": f"conv_{number}",
                    "messages": [{"id": "m", "role": "user", "content": "Hello"}],
                },
            )
            assert answer.status_code == 200


@pytest.mark.parametrize(
    ("role", "topic"), [("conversations", topics.CAPTURES), ("clickhouse", topics.MESSAGES)]
)
def test_a_worker_tells_how_far_it_is(tmp_path: Path, role: str, topic: str) -> None:
    with local_stack(tmp_path / "stack") as stack:
        port = free_port()
        url = f"http://127.0.0.1:{port}/metrics"
        environment = {
            **stack.environment,
            "OPENBAT_DATA_DIR": str(tmp_path / "other"),
            "OPENBAT_KAFKA_BOOTSTRAP": str(stack.state["kafka_bootstrap"]),
            "OPENBAT_CLICKHOUSE_URL": str(stack.state["clickhouse_url"]),
            "OPENBAT_METRICS_PORT": str(port),
        }
        with process([*OPENBAT, "worker", role], environment, tmp_path / "worker.log"):
            # It has a share of the partitions, the stack's own worker has the others.
            wait_until(
                lambda: (
                    total(scraped(url), "openbat_ready") == 1
                    and len(scraped(url).get("openbat_lag_records", [])) > 0
                ),
                90,
                "the worker's partitions",
            )
            post_all(stack, str(stack.state["api_key"]))

            def did_its_part() -> bool:
                seen = scraped(url)
                worked = (
                    "openbat_store_entries" if role == "conversations" else "openbat_rows_total"
                )
                return (
                    total(seen, worked) > 0
                    and total(seen, "openbat_lag_records", topic=topic) == 0
                    and total(seen, "openbat_lag_seconds", topic=topic) == 0
                    and total(seen, "openbat_in_flight_records") == 0
                    and total(seen, "openbat_recovery_remaining_records") == 0
                )

            wait_until(did_its_part, 60, "its part of the captures")
            seen = scraped(url)
            assert total(seen, "openbat_loop_delay_seconds") < 5
            assert total(seen, "openbat_dead_letters_total") == 0
            if role == "clickhouse":
                assert total(seen, "openbat_insert_seconds_count") > 0
        gateway = scraped(f"{stack.gateway_url}/metrics")
        assert total(gateway, "openbat_ready") == 1
        assert total(gateway, "openbat_requests_total", status="200") == CONVERSATIONS
        assert total(gateway, "openbat_captures_per_record_sum") == CONVERSATIONS
        answered = total(gateway, "openbat_exact_answer_seconds_count")
        late = total(gateway, "openbat_provisional_answers_total", reason="late")
        assert answered + late == CONVERSATIONS
        assert answered > 0
