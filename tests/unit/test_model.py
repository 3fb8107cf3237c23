"""The model of what a fleet takes: it finds the costs that samples were made with."""

import pytest

from bench.model import BUSY, Cost, Sample, captures_per_record, fit, need

COST = Cost(idle=0.02, record=300e-6, capture=40e-6)
RATES = ((100, 100), (400, 350), (1600, 800), (4000, 900))


@pytest.mark.parametrize("cost", [COST, Cost(0.0, 0.0, 20e-6), Cost(0.1, 50e-6, 0.0)])
def test_the_costs_that_samples_were_made_with_are_found(cost: Cost) -> None:
    samples = [
        Sample(captures, records, cost.cores(captures, records)) for captures, records in RATES
    ]
    found = fit(samples, cost.idle)
    assert (found.record, found.capture) == pytest.approx((cost.record, cost.capture), abs=1e-9)


@pytest.mark.parametrize("cores", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.2, 1.0, 6.0)])
def test_no_cost_is_negative(cores: tuple[float, ...]) -> None:
    samples = [Sample(*rates, busy) for rates, busy in zip(RATES, cores, strict=True)]
    found = fit(samples, 0.0)
    assert min(found.record, found.capture) == 0
    assert max(found.record, found.capture) > 0


def test_one_record_per_capture_can_be_told_apart_from_nothing() -> None:
    samples = [Sample(rate, rate, COST.cores(rate, rate)) for rate in (100, 200)]
    found = fit(samples, COST.idle)
    assert found.cores(300, 300) == pytest.approx(COST.cores(300, 300))


def test_captures_that_come_within_the_linger_share_a_record() -> None:
    assert captures_per_record(0, 1, 1, 1) == 1
    assert captures_per_record(8000, 0.001, 1, 8) == 2
    assert captures_per_record(8000, 0.001, 2, 8) == 1.5


@pytest.mark.parametrize("rate", [1, 1_000, 100_000, 1_000_000])
def test_what_is_needed_is_enough(rate: float) -> None:
    costs = {"gateway": COST, "conversations": COST, "clickhouse": Cost(0.0, 0.0, 20e-6)}
    found = need(rate, 0.005, costs, 1_000, 2.5)
    records = rate / found.captures_per_record
    for role, cost in costs.items():
        processes = getattr(found, role if role != "gateway" else "gateways")
        assert cost.cores(rate / processes, records / processes) <= BUSY
    assert found.partitions >= 4 * found.conversations
    assert found.brokers >= 3
    assert found.brokers * 50e6 >= found.log_bytes
    assert found.rows == 2.5 * rate


def test_a_longer_linger_takes_no_more_processes() -> None:
    costs = {"gateway": COST, "conversations": COST, "clickhouse": COST}
    short, long = (need(100_000, linger, costs, 1_000, 2.5) for linger in (0.001, 0.02))
    assert long.conversations < short.conversations
