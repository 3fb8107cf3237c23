"""What captures cost, as a model: fitted to samples, and asked what a fleet takes. Pure.

A role's processor time is a sum: what it takes idle, a record, and a capture. How many captures
share a record follows from how many come to one gateway for one partition within the linger.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

BUSY = 0.5
"""The share of a core that a process is to use: the rest is for peaks, restarts and catching up."""
PARTITIONS_PER_WORKER = 4
"""At least, so that workers share them evenly and can be doubled twice."""
LEAST_PARTITIONS = 8
REPLICATION = 3
BROKER_BYTES = 50e6
"""What one broker is to write in a second, copies for others included: half of 1 Gbit/s."""
INSERTS_PER_WORKER = 4.0
"""In a second at most: two tables, a batch every half second."""


class Sample(NamedTuple):
    """What a role took at some rate: captures, records and busy cores, each per second."""

    captures: float
    records: float
    cores: float


class Cost(Struct):
    """What a role takes: cores when idle, and processor seconds a record and a capture."""

    idle: float
    record: float
    capture: float

    def cores(self, captures: float, records: float) -> float:
        """Return the cores that so many captures and records a second keep busy."""
        return self.idle + self.record * records + self.capture * captures


def fit(samples: Sequence[Sample], idle: float) -> Cost:
    """Return the costs with the least squares of relative errors, none of them negative."""
    weights = [1 / each.cores**2 for each in samples]

    def total(value: Sequence[float]) -> float:
        return sum(weight * each for weight, each in zip(weights, value, strict=True))

    above = [each.cores - idle for each in samples]
    by_record = [each.records for each in samples]
    by_capture = [each.captures for each in samples]
    rr = total([r * r for r in by_record])
    cc = total([c * c for c in by_capture])
    rc = total([r * c for r, c in zip(by_record, by_capture, strict=True)])
    ry = total([r * y for r, y in zip(by_record, above, strict=True)])
    cy = total([c * y for c, y in zip(by_capture, above, strict=True)])
    determinant = rr * cc - rc * rc
    record = (cc * ry - rc * cy) / determinant if determinant else -1.0
    capture = (rr * cy - rc * ry) / determinant if determinant else -1.0
    if record < 0:
        return Cost(idle, 0.0, max(cy / cc, 0.0))
    if capture < 0:
        return Cost(idle, max(ry / rr, 0.0), 0.0)
    return Cost(idle, record, capture)


def captures_per_record(rate: float, linger: float, gateways: int, partitions: int) -> float:
    """Return how many captures share a record, at a rate per second and a linger in seconds."""
    return 1 + rate * linger / (gateways * partitions)


class Need(Struct):
    """What a rate takes: processes of each role, and what the systems around them must bear."""

    rate: float
    linger: float
    gateways: int
    conversations: int
    clickhouse: int
    partitions: int
    captures_per_record: float
    log_bytes: float
    brokers: int
    rows: float
    inserts: float


def need(
    rate: float,
    linger: float,
    costs: Mapping[str, Cost],
    bytes_per_capture: float,
    rows_per_capture: float,
) -> Need:
    """Return what a rate takes.

    Args:
        rate: captures per second.
        linger: of the gateways, in seconds.
        costs: by role: gateway, conversations, clickhouse.
        bytes_per_capture: in all topics together, one copy.
        rows_per_capture: in both tables together.

    """
    counts = dict.fromkeys(costs, 1)
    while True:
        wanted = PARTITIONS_PER_WORKER * max(counts["conversations"], counts["clickhouse"])
        partitions = max(LEAST_PARTITIONS, 2 ** math.ceil(math.log2(wanted)))
        shared = captures_per_record(rate, linger, counts["gateway"], partitions)
        found = {role: _processes(cost, rate, rate / shared) for role, cost in costs.items()}
        if all(found[role] <= counts[role] for role in costs):
            break
        counts = {role: max(found[role], counts[role]) for role in costs}
    log_bytes = rate * bytes_per_capture * REPLICATION
    return Need(
        rate,
        linger,
        counts["gateway"],
        counts["conversations"],
        counts["clickhouse"],
        partitions,
        shared,
        log_bytes,
        max(REPLICATION, math.ceil(log_bytes / BROKER_BYTES)),
        rate * rows_per_capture,
        counts["clickhouse"] * INSERTS_PER_WORKER,
    )


class Model(Struct):
    """What was found.

    Attributes:
        costs: by role.
        log_bytes: a capture takes in each topic, one copy, as the broker stores it.
        rows: a capture takes in both tables together.
        needs: what that comes to.

    """

    costs: dict[str, Cost]
    log_bytes: dict[str, float]
    rows: float
    needs: list[Need]


def _processes(cost: Cost, captures: float, records: float) -> int:
    """Return how many processes a role takes, each with its share of the work."""
    room = BUSY - cost.idle
    return max(1, math.ceil((cost.cores(captures, records) - cost.idle) / room))
