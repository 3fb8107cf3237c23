"""The model of costs, fitted at several steady rates and checked at each rate that was left out."""

import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import median

from bench import load
from bench.figures import Figure
from bench.meter import Meter
from bench.model import Model, Sample, fit, need
from bench.run import Run, say
from bench.whole import ROLES, drained, records, row_count
from schemas import topics
from tests.stack import Stack

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of saturation: above them the load and the roles wait for the same cores."""
LAPS = 3
RATES = (1_000, 100_000, 1_000_000)
LINGERS = (0.001, 0.005, 0.02)
LOGS = (topics.CAPTURES, topics.REPLIES, topics.MESSAGES, topics.ANALYSIS,
        topics.CONVERSATIONS_CHANGELOG)  # fmt: skip


def measure(run: Run, stack: Stack, saturation: float) -> tuple[list[Figure], Model]:
    """Fit the model, and compare it with what was measured.

    Args:
        run: how long.
        stack: with one process of each role.
        saturation: captures per second that it takes.

    """
    pids = {role: stack.pids(role)[0] for role in ROLES}
    idle = _idle(pids, run.seconds)
    before, rows_before = _log_bytes(stack), row_count(stack)
    laps: dict[tuple[str, float], list[Sample]] = {each: [] for each in product(ROLES, SHARES)}
    captures = 0
    for lap, share in product(range(LAPS), SHARES):
        rate = saturation * share
        records_before = records(stack)
        meters = {role: Meter(pid) for role, pid in pids.items()}
        started = time.monotonic()
        sent = load.post(stack, f"m{lap}-{share}", rate, run.seconds).all_sent
        drained(stack, rows_before)
        seconds = time.monotonic() - started
        written = records(stack) - records_before
        captures += sent
        cores = {role: meter.cpu() / seconds for role, meter in meters.items()}
        say(
            f"model, {rate:,.0f} captures/s: {sent / written:.2f} a record, cores: "
            + ", ".join(f"{role} {busy:.3f}" for role, busy in cores.items())
        )
        for role, busy in cores.items():
            laps[role, share].append(Sample(sent / seconds, written / seconds, busy))
    samples = {role: [_median(laps[role, share]) for share in SHARES] for role in ROLES}
    costs = {role: fit(found, idle[role]) for role, found in samples.items()}
    log_bytes = {name: (size - before[name]) / captures for name, size in _log_bytes(stack).items()}
    rows = (row_count(stack) - rows_before) / captures
    needs = [
        need(rate, linger, costs, sum(log_bytes.values()), rows)
        for rate in RATES
        for linger in LINGERS
    ]
    return _checks(samples, idle), Model(costs, log_bytes, rows, needs)


def _median(laps: list[Sample]) -> Sample:
    return Sample(*map(median, zip(*laps, strict=True)))


def _checks(samples: Mapping[str, list[Sample]], idle: Mapping[str, float]) -> list[Figure]:
    """Compare each sample with the model that is fitted to all others."""
    figures = []
    for role, found in samples.items():
        figure = Figure(
            f"model of {role}", "cores", "measured at a rate that was left out", 1.2, 1.1,
            is_cost=True, note="the larger of the two over the smaller",
        )  # fmt: skip
        for at, left_out in enumerate(found):
            others = fit(found[:at] + found[at + 1 :], idle[role])
            cores = others.cores(left_out.captures, left_out.records), left_out.cores
            figure.add(max(cores), min(cores))
        figures.append(figure)
    return figures


def _idle(pids: Mapping[str, int], seconds: float) -> dict[str, float]:
    meters = {role: Meter(pid) for role, pid in pids.items()}
    time.sleep(seconds)
    return {role: meter.cpu() / meter.wall() for role, meter in meters.items()}


def _log_bytes(stack: Stack) -> dict[str, int]:
    """Return what the broker has written of each topic."""
    logs = Path(stack.data_dir) / "kafka"
    return {
        name: sum(path.stat().st_size for path in logs.rglob(f"{name}-*/*.log")) for name in LOGS
    }
