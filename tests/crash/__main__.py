"""`make crash`: the matrix at full length. Stopped, it goes on where it was when called again."""

import argparse
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct, field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.crash import campaign, zombie
from tests.crash.campaign import Outcome, Round
from tests.crash.faults import Fault, faults
from tests.crash.zombie import Seen
from tests.report import Report
from tests.stack import ROOT

ROUNDS_PER_CAMPAIGN = 25
DIRECTORY = ROOT / ".openbat" / "crash"


class Results(Struct):
    """What was found so far."""

    rounds: int
    seed: int
    campaigns: list[Outcome] = field(default_factory=list)
    zombie: Seen | None = None


def sequence(rounds: int, seed: int) -> list[Fault]:
    """Return that many faults: every kind in random order, again and again."""
    dice = random.Random(seed)  # noqa: S311
    found: list[Fault] = []
    while len(found) < rounds:
        kinds = faults()
        dice.shuffle(kinds)
        found += kinds
    return found[:rounds]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    arguments = parser.parse_args()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    progress_file = arguments.directory / "progress.json"
    report = Report("crash", f"make crash ROUNDS={arguments.rounds}")
    results = _resumed(progress_file, arguments.rounds, arguments.seed)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console,
    ) as progress:  # fmt: skip
        done = sum(len(outcome.rounds) for outcome in results.campaigns)
        task = progress.add_task("rounds", total=arguments.rounds, completed=done)

        def on_round(found: Round) -> None:
            progress.advance(task)
            progress.console.print(
                f"{found.role}: {found.moment}; exact again after {found.exact_seconds:.1f} s"
            )

        found = sequence(arguments.rounds, arguments.seed)
        for begin in range(done, arguments.rounds, ROUNDS_PER_CAMPAIGN):
            outcome = campaign.run(
                arguments.directory / f"campaign-{begin}",
                found[begin : begin + ROUNDS_PER_CAMPAIGN],
                arguments.seed + begin,
                on_round,
            )
            for deviation in outcome.deviations:
                progress.console.print(f"[bold red]deviation[/bold red] {deviation}", markup=True)
            results.campaigns.append(outcome)
            progress_file.write_bytes(msgspec.json.encode(results))
        progress.console.print("the zombie, by construction")
        results.zombie = zombie.run(arguments.directory / "zombie", arguments.seed)
    fill(report, results)
    report.write()
    progress_file.unlink()
    console.print(report.table(), markup=False)
    return 0 if all(figure.holds for figure in report.figures) else 1


def _resumed(path: Path, rounds: int, seed: int) -> Results:
    if path.exists():
        results = msgspec.json.decode(path.read_bytes(), type=Results)
        if (results.rounds, results.seed) == (rounds, seed):
            return results
    return Results(rounds, seed)


def fill(report: Report, results: Results) -> None:
    """Put the results into the report."""
    outcomes = results.campaigns
    rounds = [found for outcome in outcomes for found in outcome.rounds]
    deviations = sum(len(outcome.deviations) for outcome in outcomes)
    answers = _sum(outcome.answers for outcome in outcomes)
    report.add(
        "rounds", len(rounds), bound=f"{results.rounds}", holds=len(rounds) == results.rounds
    )
    report.add("deviations from the model", deviations, bound="0", holds=not deviations)
    if results.zombie is not None:
        late, wrong = results.zombie.late_entries, len(results.zombie.deviations)
        report.add("zombie: deviations of the recovered tables", wrong, bound="0", holds=not wrong)
        report.add("zombie: entries in the recovered tables", results.zombie.entries)
        report.add("zombie: entries that compaction took", late, bound="over 0", holds=late > 0)
    report.add("processes killed", sum(found.kills for found in rounds))
    report.add("captures posted", sum(outcome.captures for outcome in outcomes))
    report.add("messages stored", sum(outcome.messages for outcome in outcomes))
    report.add("exact answers", answers["exact"])
    report.add("provisional answers", answers["provisional"])
    for what, count in sorted(_sum(outcome.refused for outcome in outcomes).items()):
        report.add(f"attempts that ended with {what}", count)
    silence = max((outcome.longest_silence_seconds for outcome in outcomes), default=0.0)
    report.add("longest time without any answer", silence, "s")
    by_kind: dict[tuple[str, str], list[Round]] = {}
    for each in rounds:
        by_kind.setdefault((each.role, each.moment), []).append(each)
    for (role, moment), of_one in sorted(by_kind.items()):
        exact = [found.exact_seconds for found in of_one]
        rows = [found.rows_seconds for found in of_one]
        report.add(
            f"{role}: {moment.removeprefix(f'{role}.')}",
            f"{len(of_one)} rounds, {sum(found.kills for found in of_one)} killed; exact again "
            f"after {statistics.median(exact):.1f} s (most {max(exact):.1f}), in ClickHouse after "
            f"{statistics.median(rows):.1f} s (most {max(rows):.1f})",
        )


def _sum(counts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


if __name__ == "__main__":
    sys.exit(main())
