"""How figures are judged and written down."""

from bench.figures import Figure, Results
from bench.report import table


def figure(must: float | None, *, is_cost: bool = False) -> Figure:
    made = Figure("ours", "captures/CPU-s", "theirs", must, must, is_cost=is_cost)
    for ours, theirs in ((1.0, 4.0), (3.0, 4.0), (2.0, 4.0)):
        made.add(ours, theirs)
    return made


def test_a_ratio_is_the_median_of_its_rounds() -> None:
    row = figure(None).row()
    assert (row.ours, row.peer, row.ratio, row.spread, row.rounds) == (2, 4, 0.5, (0.25, 0.75), 3)


def test_a_figure_holds_where_it_reaches_what_it_must() -> None:
    assert figure(0.5).holds
    assert not figure(0.51).holds


def test_a_cost_holds_where_it_exceeds_nothing() -> None:
    assert figure(0.5, is_cost=True).holds
    assert not figure(0.49, is_cost=True).holds


def test_a_run_holds_where_every_figure_does_whatever_its_limits_say() -> None:
    assert Results([figure(0.5).row(), figure(None).row()]).holds
    assert not Results([figure(0.9).row(), figure(None).row()]).holds


def test_the_table_says_what_holds_and_what_is_a_limit() -> None:
    written = table(Results([figure(must).row() for must in (0.5, 0.9, None)]))
    ends = [line.split("|")[7:10] for line in written.splitlines() if line.startswith("| ours")]
    assert ends == [
        [" ≥ 0.5 ", " ≥ 0.5 ", " yes "],
        [" ≥ 0.9 ", " ≥ 0.9 ", " **no** "],
        ["  ", " ", " a limit "],
    ]
