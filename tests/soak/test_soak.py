"""Hours in minutes: at saturation, memory stays flat and every count is right."""

import sys
import time
from pathlib import Path

import msgspec
import pytest

from schemas import sizes
from tests.report import Report
from tests.soak.load import Counts
from tests.soak.memory import Memory
from tests.stack import ROOT, local_stack, process

CLIENTS = 32
FULL_SECONDS, SHORT_SECONDS = 1200, 12
SAMPLE_SECONDS = {True: 5.0, False: 1.0}
OURS = ("gateway", "conversations", "clickhouse")
GROWTH, GROWTH_BYTES = 0.10, 32 * sizes.MIB
CACHE_MIB = 16
"""Small, so that it is full soon: until then a worker grows with its table."""
SHORT_GROWTH_BYTES = 128 * sizes.MIB
"""In seconds the caches are still filling: only what would never end shows."""


@pytest.mark.timeout(1800)
def test_memory_is_flat_at_saturation(full: bool, report: Report, tmp_path: Path) -> None:
    seconds = FULL_SECONDS if full else SHORT_SECONDS
    with local_stack(tmp_path / "stack", OPENBAT_TABLE_CACHE_MEBIBYTES=f"{CACHE_MIB}") as stack:
        memory = Memory(stack)
        state = stack.state
        arguments = [
            sys.executable, "-m", "tests.soak.load",
            stack.gateway_url, state["api_key"], str(seconds), str(CLIENTS), "soak",
        ]  # fmt: skip
        output = tmp_path / "load.json"
        with process(arguments, {**stack.environment, "PYTHONPATH": str(ROOT)}, output) as load:
            said = begun = time.monotonic()
            while load.poll() is None:
                memory.sample()
                if time.monotonic() - said >= 30:
                    said = time.monotonic()
                    sys.stderr.write(f"soak: {said - begun:.0f} s, MiB {memory.line()}\n")
                time.sleep(SAMPLE_SECONDS[full])  # the processes have no event for "memory grew"
            assert load.poll() == 0, output.read_text()
        counts = msgspec.json.decode(output.read_text(), type=Counts)
        query = (
            "SELECT count() AS messages, uniqExact(conversation_id) > 0 AS some "
            "FROM openbat.messages WHERE external_conversation_id LIKE 'soak-%'"
        )
        expected = [{"messages": counts.messages, "some": 1}]
        rows = stack.wait_sql(query, expected, seconds=120)
        summed = stack.sql(
            "SELECT sum(message_count) AS messages FROM openbat.conversations "
            "WHERE external_conversation_id LIKE 'soak-%'"
        )
    rate = counts.captures / counts.seconds
    report.add("captures answered at saturation", rate, "captures/s")
    report.add("their answers, median", counts.p50_milliseconds, "ms")
    report.add("their answers, 99th percentile", counts.p99_milliseconds, "ms")
    report.add("captures", counts.captures)
    report.add("provisional answers", counts.provisional)
    report.add("captures refused, and sent again", counts.refused)
    exact = {
        "exact answers that are wrong": (counts.wrong, 0),
        "messages in ClickHouse": (rows[0]["messages"], counts.messages),
        "messages counted in conversations": (summed[0]["messages"], counts.messages),
    }
    for what, (found, wanted) in exact.items():
        report.add(what, found, bound=f"{wanted}", holds=found == wanted)
    grown = {}
    for role in memory.roles():
        before, after = (memory.median_bytes(role, quarter) for quarter in (2, 4))
        allowed = max(before * GROWTH, GROWTH_BYTES if full else SHORT_GROWTH_BYTES)
        holds = after - before <= allowed
        bound = f"at most {allowed / sizes.MIB:.0f} MiB more" if role in OURS else ""
        report.add(f"memory of {role}, 2nd quarter", before / sizes.MIB, "MiB")
        report.add(
            f"memory of {role}, 4th quarter", after / sizes.MIB, "MiB", bound=bound, holds=holds
        )
        if role in OURS and not holds:
            grown[role] = (before / sizes.MIB, after / sizes.MIB)
    assert all(found == wanted for found, wanted in exact.values()), exact
    assert not grown, grown
