"""What one look at a deployment has seen. Times are UTC, ages in seconds, lag in records."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from schemas import topics

Role = Literal["conversations", "clickhouse", "analysis"]
Part = Literal["roles", "clickhouse", "dead_letters"]

STABLE = "Stable"
"""Kafka's name for a group whose members all have their partitions."""

GROUPS: Mapping[Role, str] = {
    "conversations": topics.CONVERSATIONS_GROUP,
    "clickhouse": topics.CLICKHOUSE_GROUP,
    "analysis": topics.ANALYSIS_GROUP,
}
READS: Mapping[Role, tuple[str, ...]] = {
    "conversations": (topics.CAPTURES,),
    "clickhouse": (topics.MESSAGES, topics.ANALYSES),
    "analysis": (topics.ANALYSIS, topics.ANALYSIS_LATER),
}


class TopicSeen(Struct, frozen=True):
    """A topic that a role reads.

    Attributes:
        topic: its name.
        partitions: how many it has.
        read: how many of them a member of the group has.
        lag_records: from the committed positions to the ends.
        oldest_seconds: the age of the oldest record that is not committed, None where all are, or
            where it could not be read in time.

    """

    topic: str
    partitions: int
    read: int
    lag_records: int
    oldest_seconds: float | None


class RoleSeen(Struct, frozen=True):
    """A role's consumer group. `state` is Kafka's word; `was_there` whether it ever committed."""

    role: Role
    group: str
    state: str
    members: int
    was_there: bool
    topics: list[TopicSeen]


class RowsSeen(Struct, frozen=True):
    """ClickHouse: its rows of messages, and when the newest of them was received.

    Attributes:
        message_rows: a message may have two while they are not merged; None without their table.
        newest_received_at: None where there is no row.
        missing: tables and views that `openbat migrate` makes, and that are not there.

    """

    message_rows: int | None
    newest_received_at: datetime | None
    missing: list[str] = []


class LettersSeen(Struct, frozen=True):
    """Dead letters: how many, and how many of each reason."""

    total: int
    reasons: dict[str, int]


class ProcessSeen(Struct, frozen=True):
    """A process of the local stack.

    Attributes:
        role: what it does.
        pid: its id.
        alive: whether there is such a process.
        name: its own, which its log file has too.
        answers: whether it answered when it was asked for its health; None where it can't be asked,
            as Kafka and ClickHouse, which are looked at themselves.
        reasons: why it is not ready, in sentences.

    """

    role: str
    pid: int
    alive: bool
    name: str
    answers: bool | None = None
    reasons: list[str] = []


class Seen(Struct, frozen=True):
    """One look. A part that is None did not answer; `away` says why, in a sentence for each.

    Attributes:
        at: when it was.
        roles: the workers' groups.
        clickhouse: its rows.
        dead_letters: what could not be processed.
        processes: of the local stack, None where none runs here.
        away: why a part is None.

    """

    at: datetime
    roles: list[RoleSeen] | None
    clickhouse: RowsSeen | None
    dead_letters: LettersSeen | None
    processes: list[ProcessSeen] | None
    away: dict[Part, str]
