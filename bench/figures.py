"""Figures: ours and a peer's, round by round, and what their ratio must be."""

import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version

from msgspec import Struct, field

from bench.model import Model

LIBRARIES = (
    "aiokafka", "chdb", "clickhouse-connect", "faust-streaming", "msgspec", "rocksdict",
    "starlette", "uvicorn", "uvloop",
)  # fmt: skip


class Figure(Struct):
    """One comparison. Its ratio is ours over the peer's, of the same round.

    Where nothing is asked of it, it is a limit: what a part of the job reaches alone, measured
    beside the whole, so that a reader sees what stands in the way of it.

    Attributes:
        name: what is compared.
        unit: of both sides.
        peer_name: what it is compared with.
        must: what the ratio must reach; where `is_cost`, what it must not exceed; None for a limit.
        aim: what we would like it to be.
        ours: a value per round.
        peer: a value per round.
        is_cost: whether less is better.
        note: what a reader must know to judge it.

    """

    name: str
    unit: str
    peer_name: str
    must: float | None = None
    aim: float | None = None
    ours: list[float] = []
    peer: list[float] = []
    is_cost: bool = False
    note: str = ""

    def add(self, ours: float, peer: float) -> None:
        """Add a round."""
        self.ours.append(ours)
        self.peer.append(peer)

    @property
    def ratios(self) -> list[float]:
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def holds(self) -> bool:
        if self.must is None:
            return True
        return self.ratio <= self.must if self.is_cost else self.ratio >= self.must

    def row(self) -> "Row":
        ratios = self.ratios
        return Row(
            self.name,
            self.unit,
            self.peer_name,
            statistics.median(self.ours),
            statistics.median(self.peer),
            self.ratio,
            (min(ratios), max(ratios)),
            self.must,
            self.aim,
            self.is_cost,
            self.holds,
            len(ratios),
            self.note,
        )


class Row(Struct):
    """A figure as it is written down: medians, and the ratio's least and greatest round."""

    name: str
    unit: str
    peer_name: str
    ours: float
    peer: float
    ratio: float
    spread: tuple[float, float]
    must: float | None
    aim: float | None
    is_cost: bool
    holds: bool
    rounds: int
    note: str


class Reading(Struct):
    """Something that is measured and compared with nothing."""

    name: str
    value: float
    unit: str
    note: str = ""


def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


class Results(Struct):
    """All that a run found."""

    figures: list[Row] = []
    readings: list[Reading] = []
    seconds: int = 0
    data: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    machine: str = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    python: str = platform.python_version()
    versions: dict[str, str] = field(default_factory=_versions)
    peers: dict[str, str] = {}
    model: Model | None = None

    @property
    def holds(self) -> bool:
        return all(row.holds for row in self.figures)
