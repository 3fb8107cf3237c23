"""What is kept of conversations: as a simple model says, and the same again after any recovery."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from schemas.records import AnalysisItem, NewMessage, Said
from streams.asking import NO_MESSAGES
from streams.context import (
    CONTEXT,
    DUE,
    SAID_MESSAGES,
    Context,
    Quiet,
    changes,
    context_key,
    conversation_due,
    decode_context,
    due_key,
    due_prefix,
    found_key,
    judged,
    remembered,
    replay_entry,
    take_in,
)
from tests.property.worker import Entry, Table, change, compacted

CHATBOT = bytes(16)
CONVERSATIONS = (b"\1" * 16, b"\2" * 16)
QUIET = Quiet(judged=10, forgotten=100)

cuts = st.floats(0, 1)
"""Where something happens: a share of the way."""


def message(position: int, received_at: int = 7) -> NewMessage:
    return NewMessage(f"m{position}", "user", f"said at {position}", 3, received_at, position)


def item(conversation_id: bytes = CONVERSATIONS[0], revision: int = 1) -> AnalysisItem:
    return AnalysisItem(CHATBOT, conversation_id, NO_MESSAGES, revision)


class Model:
    """Every message that is remembered, by position."""

    def __init__(self) -> None:
        self.said: dict[int, Said] = {}

    def take(self, new: Sequence[NewMessage]) -> list[tuple[Said, ...]]:
        """Remember messages; return what was said before each."""
        known = self.said | {each.position: remembered(each) for each in new}
        newest = max(self.said, default=-1)
        before = [self.newest(known, each.position) for each in new]
        if max(each.position for each in new) > newest:
            self.said = {each.position: each for each in self.newest(known)}
        return before

    @staticmethod
    def newest(said: dict[int, Said], end: int | None = None) -> tuple[Said, ...]:
        """Return the newest dozen, of those before a position where it is given."""
        positions = sorted(at for at in said if end is None or at < end)
        return tuple(said[at] for at in positions[-SAID_MESSAGES:])


positions = st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True)


@given(st.lists(positions, min_size=1, max_size=8))
def test_messages_in_any_order_are_remembered_as_the_model_does(items: list[list[int]]) -> None:
    model, context = Model(), None
    for offset, taken in enumerate(items):
        new = [message(position) for position in taken]
        known = context.position if context else -1
        grown = take_in(context, item(), new, offset, 0, QUIET)
        assert grown.before == model.take(new)
        if max(taken) <= known:
            assert grown.context is context
        else:
            assert (grown.context.position, grown.context.offset) == (max(taken), offset)
            assert not grown.context.judged
        context = grown.context
        assert context.said == list(model.newest(model.said))


@st.composite
def logs(draw: DrawFn) -> list[list[int]]:
    """Return items as a log brings them, each perhaps followed by a replay from an earlier one."""
    ordered = sorted(draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True)))
    ends = sorted({*draw(st.lists(st.integers(1, len(ordered)), max_size=8)), len(ordered)})
    starts = [0, *ends[:-1]]
    whole = [ordered[start:end] for start, end in zip(starts, ends, strict=True)]
    items = []
    for at, each in enumerate(whole):
        items.append(each)
        for again in draw(st.lists(st.integers(0, at), max_size=2)):
            items += whole[again : at + 1]
    return items


@given(logs())
def test_a_log_with_replays_leaves_the_newest_dozen_of_all_messages(log: list[list[int]]) -> None:
    ever: dict[int, Said] = {}
    context = None
    for offset, taken in enumerate(log):
        new = [message(position, received_at=position) for position in taken]
        is_replay = taken[-1] in ever
        ever |= {each.position: remembered(each) for each in new}
        grown = take_in(context, item(), new, offset, 0, QUIET)
        if is_replay:
            assert grown.context is context
        else:
            assert grown.before == [Model.newest(ever, position) for position in taken]
        context = grown.context
        assert context.said == list(Model.newest(ever))
        assert context.received_at == context.position
        assert context.due == context.received_at + QUIET.judged


def test_what_an_item_brings_along_counts_where_nothing_is_known() -> None:
    said = [remembered(message(position)) for position in range(5)]
    brought = AnalysisItem(CHATBOT, CONVERSATIONS[0], NO_MESSAGES, 1, said)
    assert take_in(None, brought, [message(9)], 0, 0, QUIET).before == [tuple(said)]
    known = take_in(None, item(), [message(8)], 0, 0, QUIET).context
    assert take_in(known, brought, [message(9)], 0, 0, QUIET).before == [tuple(known.said)]


class Step(NamedTuple):
    """What happens to a conversation: a message comes, or it is found about, judged, forgotten."""

    conversation_id: bytes
    kind: str


steps = st.builds(
    Step,
    st.sampled_from(CONVERSATIONS),
    st.sampled_from(["take", "take", "replay", "found", "judge", "judge", "forget"]),
)
SWEEPING = {"judge", "forget"}
gulps = st.lists(st.lists(steps, min_size=1, max_size=4), min_size=1, max_size=12)


class Live:
    """The local table of a worker, and the changelog that it wrote."""

    def __init__(self, happens: list[list[Step]]) -> None:
        self.table: Table = {}
        self.changelog: list[Entry] = []
        self.ends: list[int] = []
        """After each gulp, how many entries the changelog had."""
        self.forgotten: dict[bytes, int] = {}
        """Of conversations that were forgotten, when that was due."""
        self._time = 0
        for gulp in happens:
            self._process(gulp)
            self.ends.append(len(self.changelog))

    def _process(self, gulp: list[Step]) -> None:
        before = {each: decode_context(self.table.get(context_key(each))) for each in CONVERSATIONS}
        after = dict(before)
        # As the agent does: what is quiet is looked at when all records are taken in.
        for conversation_id, kind in sorted(gulp, key=lambda step: step.kind in SWEEPING):
            known = after[conversation_id]
            if kind in {"take", "replay"}:
                self._time += kind == "take"
                new = [message(self._time, received_at=self._time)]
                after[conversation_id] = take_in(
                    known, item(conversation_id), new, 0, 0, QUIET
                ).context
            elif kind == "found":
                key = found_key(conversation_id, self._time, "a", "1", whole=False)
                self._write({key: b"found"}, [(key, b"found")])
            elif kind == "judge" and known is not None and not known.judged:
                self._forget_found(conversation_id)
                after[conversation_id] = judged(known, QUIET)
            elif kind == "forget" and before[conversation_id] is known and known and known.judged:
                self._forget_found(conversation_id)
                after[conversation_id] = None
                self.forgotten[conversation_id] = known.due
        for conversation_id, now in after.items():
            if now is not before[conversation_id]:
                self._write(*changes(before[conversation_id], now))

    def _write(self, local: dict[bytes, bytes | None], changelog: list[Entry]) -> None:
        change(self.table, local)
        self.changelog += changelog

    def _forget_found(self, conversation_id: bytes) -> None:
        found = [key for key in self.table if key.startswith(b"f" + conversation_id)]
        self._write(dict.fromkeys(found), [(key, None) for key in found])


def rebuilt(changelog: list[Entry]) -> Table:
    """Return the table that recovery makes of a changelog."""
    table: Table = {}
    for key, value in changelog:
        change(table, replay_entry(key, value, table.get))
    return table


def contexts(table: Table) -> dict[bytes, Context]:
    """Return a table's contexts, by conversation."""
    entries = {key: entry for key, entry in table.items() if key[:1] == CONTEXT}
    return {key[1:]: context for key in entries if (context := decode_context(entries[key]))}


def assert_due_once(table: Table) -> None:
    """Each context is due at one moment, and nothing is due that is none."""
    due = {key for key in table if key[:1] == DUE}
    assert due == {due_key(context) for context in contexts(table).values()}


@given(gulps)
def test_a_live_table_has_each_context_due_once(happens: list[list[Step]]) -> None:
    assert_due_once(Live(happens).table)


@given(gulps)
def test_a_table_is_rebuilt_from_its_changelog_alone(happens: list[list[Step]]) -> None:
    live = Live(happens)
    assert rebuilt(live.changelog) == live.table


@given(gulps, st.booleans())
def test_a_table_is_rebuilt_from_its_compacted_changelog(
    happens: list[list[Step]], tombstones_expired: bool
) -> None:
    live = Live(happens)
    assert rebuilt(compacted(live.changelog, tombstones_expired=tombstones_expired)) == live.table


@given(gulps, cuts, st.booleans())
def test_an_end_of_the_changelog_that_is_sent_again_changes_nothing(
    happens: list[list[Step]], cut: float, compacting: bool
) -> None:
    live = Live(happens)
    again = live.changelog[round(cut * len(live.changelog)) :]
    changelog = live.changelog + again
    assert rebuilt(changelog) == live.table
    assert rebuilt(compacted(changelog, tombstones_expired=compacting)) == live.table


@given(gulps, cuts)
def test_a_changelog_that_ends_anywhere_has_each_context_due_once_and_none_is_missing(
    happens: list[list[Step]], cut: float
) -> None:
    live = Live(happens)
    end = round(cut * len(live.changelog))
    recovered = rebuilt(live.changelog[:end])
    assert_due_once(recovered)
    whole = max([at for at in [0, *live.ends] if at <= end])
    gone = {key[1:17] for key, value in live.changelog[whole:end] if value is None}
    kept = contexts(rebuilt(live.changelog[:whole])).keys() - gone
    assert kept <= contexts(recovered).keys()


@given(
    gulps,
    st.lists(
        st.tuples(cuts, cuts, cuts, st.sampled_from(["zombie", "zombie", "compact", "expire"]))
    ),
)
def test_late_writes_of_a_zombie_hide_no_context_and_bring_back_none_but_forgotten_ones(
    happens: list[list[Step]], events: list[tuple[float, float, float, str]]
) -> None:
    """One that was forgotten may be back. It is due at once then, and goes again."""
    live = Live(happens)
    written = live.changelog
    changelog: list[Entry] = []
    reached = 0
    for when, begin, end, kind in sorted(events):
        upto = round(when * len(written))
        changelog += written[reached:upto]
        reached = upto
        if kind == "zombie":
            stop = round(end * upto)
            changelog += written[round(begin * stop) : stop]
        else:
            changelog = compacted(changelog, tombstones_expired=kind == "expire")
    changelog += written[reached:]
    recovered = rebuilt(changelog)
    assert_due_once(recovered)
    expected, found = contexts(live.table), contexts(recovered)
    assert {each: found.get(each) for each in expected} == expected
    for conversation_id in found.keys() - expected.keys():
        assert found[conversation_id].due <= live.forgotten[conversation_id]


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.sampled_from(CONVERSATIONS))
def test_what_is_due_is_in_the_order_of_time(at: int, other: int, conversation_id: bytes) -> None:
    context = take_in(None, item(conversation_id), [message(1)], 0, 0, QUIET).context
    context.due = at
    assert (due_key(context) < due_prefix(other)) == (at < other)
    assert conversation_due(due_key(context)) == conversation_id
