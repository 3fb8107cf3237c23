"""`python -m bench [--short]`: runs every comparison, writes it down, and judges it.

Exits with 1 where a figure does not reach what it must, with 2 where one could not be measured.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench import (
    analysis,
    clickhouse,
    data,
    gateway,
    growth,
    latency,
    report,
    scale,
    scaling,
    steps,
    whole,
    worker,
    wrk,
)
from bench.contest import PARTITIONS
from bench.figures import Figure, Reading, Results
from bench.model import Model
from bench.run import FULL, SHORT, BenchError, Run, say
from bench.servers import peer_versions
from tests.stack import local_stack

STACK = {
    "OPENBAT_GATEWAYS": "1",
    "OPENBAT_CONVERSATIONS_WORKERS": "1",
    "OPENBAT_CLICKHOUSE_WORKERS": "1",
    "OPENBAT_PARTITIONS": str(PARTITIONS),
}


def measure(run: Run, directory: Path) -> tuple[list[Figure], list[Reading], Model]:
    """Measure everything, one comparison after the other."""
    each_step = steps.measure(directory / "steps")
    say(f"data: {data.source()}, {data.messages_per_capture():.2f} messages a capture")
    with local_stack(directory / "stack", **STACK) as stack:
        gateways = gateway.measure(run, stack, directory)
        together = whole.measure(run, stack, directory)
        latencies = latency.measure(run, stack, directory, together.rate)
        checks, model = scaling.measure(run, stack, together.rate)
    size = worker.nearest(together.size)
    workers, readings = worker.measure(run, directory / "workers", together.size)
    sink = clickhouse.measure(run, directory / "clickhouse", size)
    analysed = analysis.measure(run, directory / "analysis")
    with local_stack(directory / "beside", **STACK | {"OPENBAT_ANALYSIS_WORKERS": "1"}) as stack:
        analysed += analysis.beside(run, stack)
    grown, memory = growth.measure(run, directory / "growth")
    scaled = scale.measure(run, directory / "scale")
    alone = added_up(gateways[0], workers[0], sink)
    all_roles = Figure(
        "whole stack, every answer exact", "captures/CPU-s of all roles",
        "the roles measured alone, added up", 0.8, 0.95, together.captures,
        [alone] * len(together.captures),
    )  # fmt: skip
    figures = [*gateways, *workers, sink.figure, sink.limit, *latencies, all_roles, *grown, scaled]
    figures += [*analysed, *checks]
    rate = Reading("whole stack at saturation", together.rate, "captures/s on the clock")
    per_record = Reading("captures a record at saturation", together.size, "captures")
    return figures, [rate, per_record, *together.readings, *readings, *memory, *each_step], model


def added_up(serving: Figure, working: Figure, inserting: clickhouse.Inserted) -> float:
    """Return captures per processor second of the three roles as if each had its own machine."""
    seconds = (
        1 / median(serving.ours)
        + 1 / median(working.ours)
        + inserting.rows_per_capture / median(inserting.figure.ours)
    )
    return 1 / seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--short", action="store_true", help="fewer and shorter rounds")
    run = SHORT if parser.parse_args().short else FULL
    started = time.monotonic()
    results = Results(data=data.source(), peers=peer_versions())
    try:
        wrk.check()
        with tempfile.TemporaryDirectory(prefix="openbat-bench-") as directory:
            figures, results.readings, results.model = measure(run, Path(directory))
    except BenchError as error:
        say(f"error: {error}")
        return 2
    results.figures = [figure.row() for figure in figures]
    results.seconds = round(time.monotonic() - started)
    report.write(results, run is FULL)
    sys.stdout.write(report.table(results))
    return 0 if results.holds else 1


if __name__ == "__main__":
    sys.exit(main())
