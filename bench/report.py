"""Writes results down: JSON, and tables and plots in docs."""

from pathlib import Path

import matplotlib as mpl
import msgspec

from bench.figures import Results, Row
from bench.model import Model, Need
from tests.stack import ROOT

RESULTS = ROOT / "bench" / "results" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
SCALING_PAGE = ROOT / "docs" / "scaling.md"
PLOT = ROOT / "docs" / "reports" / "performance.svg"
NEED_COLUMNS = (
    "captures/s", "linger", "captures a record", "gateways", "conversations workers",
    "ClickHouse workers", "partitions", "brokers", "log MB/s, 3 copies", "rows/s", "inserts/s",
)  # fmt: skip
BEGIN, END = "<!-- begin: made by `make bench` -->", "<!-- end -->"


def write(results: Results, is_full: bool) -> None:
    """Write results; those of a full run into the page, too."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    content = msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
    if not is_full:
        (RESULTS.parent / "short.json").write_bytes(content)
        return
    RESULTS.write_bytes(content)
    plot(results, PLOT)
    picture = f"![Each ratio with its spread]({PLOT.relative_to(PAGE.parent)})"
    _replace(PAGE, f"{table(results)}\n{picture}\n")
    if results.model is not None:
        _replace(SCALING_PAGE, scaling(results.model))


def _replace(page: Path, made: str) -> None:
    """Put what was made between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{made}\n{END}{after}")


def scaling(model: Model) -> str:
    """Return the model in Markdown."""
    sizes = ", ".join(f"{name} {size:,.0f}" for name, size in model.log_bytes.items())
    lines = [
        "| role | cores, idle | µs a record | µs a capture |",
        "|---|---|---|---|",
        *(
            f"| {role} | {cost.idle:.3f} | {1e6 * cost.record:,.0f} | {1e6 * cost.capture:,.0f} |"
            for role, cost in model.costs.items()
        ),
        "",
        f"Bytes of a capture in the log, one copy: {sizes}. Rows of a capture: {model.rows:.2f}.",
        "",
        f"| {' | '.join(NEED_COLUMNS)} |",
        "|---" * len(NEED_COLUMNS) + "|",
        *map(_need_line, model.needs),
    ]
    return "\n".join(lines) + "\n"


def _need_line(each: Need) -> str:
    return (
        f"| {each.rate:,.0f} | {1000 * each.linger:g} ms | {each.captures_per_record:.2f} "
        f"| {each.gateways:,} | {each.conversations:,} | {each.clickhouse:,} "
        f"| {each.partitions:,} | {each.brokers:,} | {each.log_bytes / 1e6:,.0f} "
        f"| {each.rows:,.0f} | {each.inserts:,.0f} |"
    )


def table(results: Results) -> str:
    """Return results in Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    peers = ", ".join(f"{name} {number}" for name, number in results.peers.items())
    lines = [
        f"Made by `make bench` on {results.at:%Y-%m-%d} in {results.seconds} s. "
        + f"{results.machine}, Python {results.python}, {versions}. Peers: {peers}. "
        + f"Data: {results.data}.",
        "",
        "| what | unit | ours | peer | theirs | ratio (least to greatest) | must | aim | holds |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_line, results.figures),
        "",
        "| measured | value |",
        "|---|---|",
        *(f"| {each.name} | {_number(each.value)} {each.unit} |" for each in results.readings),
    ]
    notes = [f"- {row.name}, {row.peer_name}: {row.note}." for row in results.figures if row.note]
    return "\n".join([*lines, "", *notes]) + "\n"


def _line(row: Row) -> str:
    least, greatest = row.spread
    return (
        f"| {row.name} | {row.unit} | {_number(row.ours)} | {row.peer_name} | {_number(row.peer)} "
        f"| **{row.ratio:.2f}** ({least:.2f} to {greatest:.2f}) | {_judged(row)} |"
    )


def _judged(row: Row) -> str:
    if row.must is None:
        return " | | a limit"
    sign = "≤" if row.is_cost else "≥"
    return f"{sign} {row.must:g} | {sign} {row.aim:g} | {'yes' if row.holds else '**no**'}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plot(results: Results, path: Path) -> None:
    """Draw each ratio with its spread, beside what it must be and what we aim at."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "openbat"
    from matplotlib import pyplot as plt

    rows = results.figures[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(rows) + 1), layout="constrained")
    for at, row in enumerate(rows):
        least, greatest = row.spread
        axes.plot([least, greatest], [at, at], color="tab:gray", linewidth=2)
        color = "tab:gray" if row.must is None else "tab:green" if row.holds else "tab:red"
        axes.plot(row.ratio, at, "o", color=color)
        for wanted, mark in ((row.must, "black"), (row.aim, "tab:blue")):
            if wanted is not None:
                axes.plot(wanted, at, "|", color=mark, markersize=14)
    axes.set_yticks(
        range(len(rows)), [f"{row.name}\n/ {row.peer_name}" for row in rows], fontsize=7
    )
    axes.set_xscale("log")
    axes.set_xlabel(
        "ratio: dot ours, gray a limit; bar its rounds; black what it must be, blue our aim"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
