"""What is wrong with what was seen, each in a sentence that says what to do next. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from openbat.status.seen import STABLE, LettersSeen, ProcessSeen, RoleSeen, RowsSeen, Seen

LATE_SECONDS = {"conversations": 60.0, "clickhouse": 300.0, "analysis": 3600.0}
"""From when on a role is late: as deploy/alerts.yml has it."""
_RUNBOOK = {
    "conversations": "OpenbatCapturesBehind",
    "clickhouse": "OpenbatRowsLate",
    "analysis": "OpenbatAnalysisBehind",
}


class Judgement(NamedTuple):
    """What to tell a person.

    Attributes:
        problems: something is away, or nobody does a role's work.
        notes: all is there, and somebody should look all the same.

    """

    problems: list[str]
    notes: list[str]


def judge(seen: Seen) -> Judgement:
    """Return what is wrong, what matters most first."""
    # One sentence where Kafka is away, though two parts miss it.
    problems = list(dict.fromkeys(seen.away.values()))
    notes: list[str] = []
    processes = seen.processes or []
    running = Counter(process.role for process in processes if process.alive)
    if seen.clickhouse is not None:
        problems += _lacking(seen.clickhouse)
    for role in seen.roles or []:
        problems += _absent(role)
        problems += _few(role, running[role.role])
        problems += _unread(role)
        notes += _settling(role)
        notes += _late(role)
    problems += map(_dead, (process for process in processes if not process.alive))
    problems += map(_hung, (process for process in processes if process.answers is False))
    problems += _unready(processes)
    if seen.dead_letters is not None:
        notes += _letters(seen.dead_letters)
    return Judgement(problems, notes)


def _absent(role: RoleSeen) -> Iterator[str]:
    """Tell of a role that nobody does; analysis may be left out while nothing waits for it."""
    waits = role.was_there or any(topic.lag_records for topic in role.topics)
    if not role.members and (waits or role.role != "analysis"):
        off = (
            "; or switch analysis off, `openbat chatbots set NAME analysis=off`: no more is put "
            "there, and what waits already goes with the retention"
            if role.role == "analysis"
            else ""
        )
        yield (
            f"no {role.role} worker is a member of its group {role.group}: start "
            f"`openbat worker {role.role}`, or see its log for why it can't join{off}"
        )


def _few(role: RoleSeen, running: int) -> Iterator[str]:
    """Tell of workers of the local stack that are not in their group; of none, _absent does."""
    if role.state == STABLE and 0 < role.members < running:
        yield (
            f"{running} {role.role} workers of the local stack run, and {role.members} of them "
            "share the work: one that was just started joins within some seconds, so look again; "
            "one that does not is restarted, or its log says why"
        )


def _lacking(rows: RowsSeen) -> Iterator[str]:
    if rows.missing:
        names = ", ".join(f"openbat.{name}" for name in rows.missing)
        yield (
            f"ClickHouse answers, but {names} {'is' if len(rows.missing) == 1 else 'are'} missing: "
            "run `openbat migrate`, which makes what never was, and says how to get back what was "
            "there"
        )


def _unread(role: RoleSeen) -> Iterator[str]:
    for topic in role.topics:
        if role.state == STABLE and topic.read < topic.partitions:
            yield (
                f"{topic.partitions - topic.read} of {topic.partitions} partitions of "
                f"{topic.topic} are read by no {role.role} worker: restart these workers, one "
                "after the other"
            )


def _settling(role: RoleSeen) -> Iterator[str]:
    if role.members and role.state != STABLE:
        yield (
            f"the {role.role} workers are sharing out their partitions ({role.state}): look again "
            "in some seconds"
        )


def _late(role: RoleSeen) -> Iterator[str]:
    for topic in role.topics:
        if topic.oldest_seconds is not None and topic.oldest_seconds > LATE_SECONDS[role.role]:
            yield (
                f"{topic.topic} waits for {age(topic.oldest_seconds)}: see docs/operations.md, "
                f"{_RUNBOOK[role.role]}"
            )


def _dead(process: ProcessSeen) -> str:
    return (
        f"the local stack's {process.name}, process {process.pid}, is not alive: it is started "
        f"again by itself, else see logs/{process.name}.log in the data directory"
    )


def _hung(process: ProcessSeen) -> str:
    return (
        f"the local stack's {process.name}, process {process.pid}, is alive and does not answer: "
        f"look again, then at logs/{process.name}.log in the data directory; "
        f"`kill -KILL {process.pid}` ends it, and it is started again by itself"
    )


def _unready(processes: list[ProcessSeen]) -> Iterator[str]:
    """Tell once of what keeps several from their work."""
    names: dict[str, list[str]] = {}
    for process in processes:
        if process.reasons:
            names.setdefault(" ".join(process.reasons), []).append(process.name)
    for reasons, unready in names.items():
        yield (
            f"the local stack's {', '.join(unready)} {'is' if len(unready) == 1 else 'are'} not "
            f"ready: {reasons}"
        )


def _letters(letters: LettersSeen) -> Iterator[str]:
    if letters.total:
        noun = "dead letter is" if letters.total == 1 else "dead letters are"
        yield (
            f"{letters.total} {noun} kept: `openbat dead-letters list` says why, and `openbat "
            "dead-letters replay` stores them once the cause is mended"
        )


def age(seconds: float) -> str:
    """Return an age in the unit that suits it: 0.4 s, 12 s, 5 min, 3 h, 2 d."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
