"""Ids that are forgotten: answers are as the contract says, whenever sweeps come and whatever dies.

Captures are kept for 7 days, so a replay begins within the last 7 days of the records' time.
"""

from typing import NamedTuple
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from openbat.dead_letters.replay import replay_of
from schemas import topics
from schemas.dead_letters import DeadLetter, Source
from schemas.records import Captured, captures_codec, decode_captured, encode
from streams.entries import DUE, IDS, MESSAGE, STATE, conversation_due
from streams.sweep import Sweeper
from tests.captures import captured
from tests.property import strategies
from tests.property.model import DAY
from tests.property.strategies import Record
from tests.property.test_apply import modelled
from tests.property.worker import (
    Entry,
    LayeredTable,
    compacted,
    process,
    rebuilt,
    state_of,
)

KEPT_DAYS = 7
IDS_AT_ONCE = 2

cuts = st.floats(0, 1)


class Event(NamedTuple):
    """What happens after a record, and where: shares of the way."""

    kind: str
    start: float
    end: float


events = strategies.some("sweep", "commit", "crash", "zombie", "compact", "expire").flatmap(
    lambda kinds: st.lists(
        st.lists(st.builds(Event, st.sampled_from(["commit", *kinds]), cuts, cuts), max_size=3),
        min_size=12,
        max_size=12,
    )
)
"""What happens after each record."""


class Worker:
    """A partition's worker and its changelog, which outlives it."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.recover([])
        self.reached: list[int] = []
        """After each record, how many entries the changelog had: it is durable up to an end."""
        self.time = 0

    def recover(self, changelog: list[Entry]) -> None:
        """Begin with what the changelog holds."""
        self.changelog = changelog
        self.table = LayeredTable(rebuilt(changelog))
        self.sweeper = Sweeper(self.table, IDS_AT_ONCE)

    def take(self, at: int) -> list[int | None]:
        """Process a record; return its answers."""
        record = self.records[at]
        self.time = max(self.time, latest([record]))
        outcome = process(self.table, record)
        self.changelog += outcome.changelog
        self.reached[at:] = [len(self.changelog)]
        return outcome.stored

    def sweep(self) -> None:
        """Sweep a little."""
        local, tombstones = self.sweeper.sweep(0, self.time)
        self.table.remove(local)
        self.changelog += tombstones

    def sweep_all(self) -> None:
        """Sweep until nothing more can go now; each sweep looks at an entry at least."""
        self.table.commit(len(self.records))
        for _ in range(len(self.table) + 1):
            self.sweep()
            self.table.commit(1)

    def compact(self, expire: bool) -> None:
        self.changelog = compacted(self.changelog, tombstones_expired=expire)
        self.reached = [len(self.changelog)] * len(self.reached)

    def write_late(self, event: Event) -> None:
        """Append entries that were written before, as a zombie does that wakes up."""
        first = round(event.start * len(self.changelog))
        last = first + round(event.end * (len(self.changelog) - first))
        self.changelog += self.changelog[first:last]

    def die(self, event: Event) -> int:
        """Lose table and unacked end of the changelog; return the record that it goes on from."""
        known = len(self.reached)
        kept = [at for at in range(known) if self.is_kept(at)] or [known]
        acked = kept[round(event.start * (len(kept) - 1))]
        durable = self.reached[acked - 1] if acked else 0
        lost = round(event.end * (len(self.changelog) - durable))
        self.recover(self.changelog[: len(self.changelog) - lost])
        return acked

    def is_kept(self, at: int) -> bool:
        """Whether all from a record on is still in the topic, by when it was written."""
        return latest(self.records[: at + 1]) > self.time - KEPT_DAYS * DAY


def latest(records: list[Record]) -> int:
    """Return the latest receive time in records, 0 where they have no capture."""
    captures = [captured for record in records for captured in record.captures]
    return max((captured.received_at for captured in captures if captured), default=0)


@given(strategies.forgetting())
def test_ids_are_forgotten_as_the_contract_says(records: list[Record]) -> None:
    worker = Worker(records)
    assert [worker.take(at) for at in range(len(records))] == modelled(records)[1]


@given(strategies.forgetting(), events)
def test_no_answer_changes_whenever_sweeps_come_and_whatever_dies(
    records: list[Record], happens: list[list[Event]]
) -> None:
    expected = modelled(records)[1]
    worker = Worker(records)
    for at in range(len(records)):
        assert worker.take(at) == expected[at]
        for event in happens[at]:
            if event.kind == "sweep":
                worker.sweep()
            elif event.kind == "commit":
                worker.table.commit(1 + round(3 * event.start))
            elif event.kind == "zombie":
                worker.write_late(event)
            elif event.kind == "crash":
                for again in range(worker.die(event), at + 1):
                    assert worker.take(again) == expected[again]
            else:
                worker.compact(expire=event.kind == "expire")
    recovered = rebuilt(worker.changelog)
    for key, entry in worker.table.items():
        if key[:1] == STATE:
            assert recovered[key] == entry


@given(strategies.forgetting())
def test_all_that_is_kept_is_answered_the_same_after_every_sweep(records: list[Record]) -> None:
    expected = modelled(records)[1]
    worker = Worker(records)
    for at in range(len(records)):
        worker.take(at)
        worker.sweep_all()
        again = Worker(records)
        again.recover(compacted(worker.changelog, tombstones_expired=True))
        kept = [each for each in range(at + 1) if worker.is_kept(each)]
        assert [again.take(each) for each in kept] == [expected[each] for each in kept]


def test_a_duplicate_within_the_days_that_is_read_again_after_a_sweep_is_still_one() -> None:
    def record(offset: int, name: str, days: int) -> Record:
        at = (1_000 + days) * DAY
        return Record(1, offset, [captured(UUID(int=1), name, at, ["a"], 8)])

    worker = Worker([record(0, "one", 0), record(1, "one", 8), record(2, "other", 12)])
    assert [worker.take(at) for at in range(3)] == [[1], [0], [1]]
    worker.table.commit(3)
    worker.sweep()
    worker.compact(expire=False)
    assert worker.die(Event("crash", 0, 0)) == 1
    assert [worker.take(at) for at in (1, 2)] == [[0], [1]]


def test_a_forgetting_has_nothing_swept_that_may_be_asked_for_again() -> None:
    def record(offset: int, days: float, message_id: str) -> Record:
        at = round((1_000 + days) * DAY)
        return Record(1, offset, [captured(UUID(int=1), "one", at, [message_id], 9)])

    came = ((0, "a"), (8.4, "b"), (16.8, "a"), (20.8, "c"))
    worker = Worker([record(at, *each) for at, each in enumerate(came)])
    assert [worker.take(at) for at in range(4)] == [[1], [1], [0], [1]]
    worker.table.commit(4)
    worker.sweep()
    worker.compact(expire=False)
    assert worker.die(Event("crash", 0, 0)) == 2
    assert [worker.take(at) for at in (2, 3)] == [[0], [1]]


def test_a_gateway_whose_clock_is_behind_shortens_no_days() -> None:
    came = ((0, "a"), (-0.2, "b"), (7.9, "a"), (8, "b"), (8.1, "a"))
    worker = Worker(
        [
            Record(1, at, [captured(UUID(int=1), "one", round((9 + days) * DAY), [message_id], 8)])
            for at, (days, message_id) in enumerate(came)
        ]
    )
    assert [worker.take(at) for at in range(len(came))] == [[1], [1], [0], [0], [1]]


def test_an_id_that_came_again_takes_no_other_of_its_capture_with_it() -> None:
    def one(days: float, *ids: str) -> Captured:
        return captured(UUID(int=1), "one", round((1_000 + days) * DAY), ids, 8)

    again: list[Captured | None] = [one(4.1, "a"), one(8.1, "b")]
    worker = Worker([Record(1, 0, [one(0, "a", "b")]), Record(1, 1, again)])
    assert [worker.take(at) for at in range(2)] == [[2], [0, 1]]
    worker.compact(expire=False)
    assert worker.die(Event("crash", 1, 0)) == 1
    assert worker.take(1) == [0, 1]
    worker.table.commit(1)
    worker.time += 20 * DAY
    worker.sweep()
    assert not [
        key for key, _ in compacted(worker.changelog, tombstones_expired=True) if key[:1] == IDS
    ]


def test_a_letter_that_is_replayed_late_is_stored_once_and_so_is_what_repeats_it() -> None:
    def one(name: str, days: float) -> Captured:
        return captured(UUID(int=1), name, round((1_000 + days) * DAY), ["a"], 8)

    letter = DeadLetter("failed_capture", "", Source(topics.CAPTURES, 0, 4, 0))
    replay = captures_codec.decode(replay_of(letter, encode(one("late", 0)), 1).value)
    (late,) = map(decode_captured, replay.captures)
    came = [one("other", 20), late, one("late", 20.1), late, one("another", 22), late]
    worker = Worker([Record(1, at, [each]) for at, each in enumerate(came)])
    stored = []
    for at in range(len(came)):
        stored.append(worker.take(at))
        worker.table.commit(2)
        worker.sweep()
    assert stored == [[1], [1], [0], [0], [1], [0]]


@given(strategies.forgetting(), st.booleans())
def test_a_sweep_leaves_only_ids_of_conversations_that_remember(
    records: list[Record], recovered: bool
) -> None:
    worker = Worker(records)
    for at in range(len(records)):
        worker.take(at)
        worker.sweep()
        worker.table.commit(2)
    if recovered:
        worker.recover(worker.changelog)
    worker.time += 100 * DAY
    # What was on its way into the store when a day was swept is seen on the next.
    for _ in range(2):
        worker.time += DAY
        worker.sweep_all()
    ids = [key for key in worker.table if key[:1] == MESSAGE]
    for key in ids:
        assert not state_of(worker.table, key[1:17]).remember_days
    assert not [conversation_due(key) for key in worker.table if key[:1] == DUE]
    kept = {
        key[1:17]
        for key, _ in compacted(worker.changelog, tombstones_expired=True)
        if key[:1] == IDS
    }
    assert kept <= {key[1:17] for key in ids}
