"""Replays, recoveries, zombies and crashes: none of them may change an answer or a table."""

from hypothesis import given
from hypothesis import strategies as st

from tests.property import strategies
from tests.property.strategies import Record
from tests.property.worker import (
    Entry,
    Outcome,
    Table,
    changelog_of,
    compacted,
    process_all,
    rebuilt,
)

cuts = st.floats(0, 1)
"""Where something happens: a share of the way, so that it fits whatever the length."""


def share(cut: float, length: int) -> int:
    return round(cut * length)


def answers(outcomes: list[Outcome]) -> list[list[int | None]]:
    return [outcome.stored for outcome in outcomes]


def new(outcomes: list[Outcome]) -> list[list[tuple[bytes, str, int]]]:
    """Return the new messages of each record."""
    return [
        [
            (conversation, message.id, message.position)
            for conversation, messages in outcome.messages.items()
            for message in messages
        ]
        for outcome in outcomes
    ]


@given(strategies.records(), cuts, cuts)
def test_a_replay_answers_as_before_and_changes_nothing(
    records: list[Record], known: float, begin: float
) -> None:
    expected = process_all({}, records)
    table: Table = {}
    reached = share(known, len(records))
    process_all(table, records[:reached])
    start = share(begin, reached)
    before = dict(table)
    again = process_all(table, records[start:reached])
    assert answers(again) == answers(expected[start:reached])
    assert new(again) == new(expected[start:reached])
    assert table == before
    assert changelog_of(again) == []


@given(strategies.records(), cuts, cuts)
def test_a_replay_that_goes_on_answers_as_if_there_had_been_none(
    records: list[Record], known: float, begin: float
) -> None:
    undisturbed: Table = {}
    expected = process_all(undisturbed, records)
    table: Table = {}
    reached = share(known, len(records))
    process_all(table, records[:reached])
    start = share(begin, reached)
    again = process_all(table, records[start:])
    assert answers(again) == answers(expected[start:])
    assert new(again) == new(expected[start:])
    assert table == undisturbed


@given(strategies.records(), cuts)
def test_a_replay_emits_the_stored_state_again_where_it_was_changed(
    records: list[Record], begin: float
) -> None:
    table: Table = {}
    first = process_all(table, records)
    start = share(begin, len(records))
    newest = {key: state for outcome in first for key, state in outcome.states.items()}
    for before, again in zip(first[start:], process_all(table, records[start:]), strict=True):
        assert before.states.keys() <= again.states.keys()
        assert again.states == {key: newest[key] for key in again.states}


@given(strategies.records())
def test_a_table_is_rebuilt_from_its_changelog_alone(records: list[Record]) -> None:
    table: Table = {}
    assert rebuilt(changelog_of(process_all(table, records))) == table


@given(strategies.records(), st.booleans())
def test_a_table_is_rebuilt_from_its_compacted_changelog(
    records: list[Record], tombstones_expired: bool
) -> None:
    table: Table = {}
    changelog = changelog_of(process_all(table, records))
    assert rebuilt(compacted(changelog, tombstones_expired=tombstones_expired)) == table


@given(
    strategies.records(),
    st.lists(st.tuples(cuts, cuts, cuts, st.sampled_from(["zombie", "compact", "expire"]))),
)
def test_late_writes_of_a_zombie_do_no_harm_whatever_compaction_takes(
    records: list[Record], events: list[tuple[float, float, float, str]]
) -> None:
    table: Table = {}
    written = changelog_of(process_all(table, records))
    changelog: list[Entry] = []
    reached = 0
    for when, begin, end, kind in sorted(events):
        upto = share(when, len(written))
        changelog += written[reached:upto]
        reached = upto
        if kind == "zombie":
            stop = share(end, upto)
            changelog += written[share(begin, stop) : stop]
        else:
            changelog = compacted(changelog, tombstones_expired=kind == "expire")
    changelog += written[reached:]
    assert rebuilt(changelog) == table


@given(strategies.records(), cuts, cuts)
def test_a_crash_that_loses_the_end_of_the_changelog_loses_nothing(
    records: list[Record], lost: float, begin: float
) -> None:
    table: Table = {}
    expected = process_all(table, records)
    changelog = changelog_of(expected)
    kept = share(lost, len(changelog))
    whole = 0
    while whole < len(records) and len(changelog_of(expected[: whole + 1])) <= kept:
        whole += 1
    start = share(begin, whole)

    recovered = rebuilt(changelog[:kept])
    again = process_all(recovered, records[start:])

    assert answers(again) == answers(expected[start:])
    assert new(again) == new(expected[start:])
    assert recovered == table
    assert rebuilt(changelog[:kept] + changelog_of(again)) == table
