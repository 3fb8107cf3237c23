"""Every topic: its name, how many partitions, how long it keeps what.

Topics that carry conversations are co-partitioned: a conversation has the same partition number
in all of them, and in the changelog of the conversations table.
"""

from msgspec import Struct

from schemas import sizes

CAPTURES = "captures"
MESSAGES = "messages"
ANALYSIS = "analysis"
ANALYSIS_LATER = "analysis-later"
ANALYSES = "analyses"
SPENDING = "spending"
REPLIES = "replies"
CHATBOTS = "chatbots"
DEAD_LETTERS = "dead-letters"
CONVERSATIONS_GROUP = "openbat-conversations"
CLICKHOUSE_GROUP = "openbat-clickhouse"
ANALYSIS_GROUP = "openbat-analysis"
CONVERSATIONS_TABLE = "conversations"
CONVERSATIONS_CHANGELOG = f"{CONVERSATIONS_GROUP}-{CONVERSATIONS_TABLE}-changelog"
CONTEXTS_TABLE = "contexts"
CONTEXTS_CHANGELOG = f"{ANALYSIS_GROUP}-{CONTEXTS_TABLE}-changelog"

REPLY_PARTITIONS = 32

_HOUR = 3_600_000
_DAY = 24 * _HOUR


class Topic(Struct, frozen=True):
    """A topic as `openbat migrate` makes it. `partitions` None: as many as captures has."""

    name: str
    partitions: int | None
    config: dict[str, str]


def _deleted_after(milliseconds: int, max_message_bytes: int = sizes.TOPIC) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(milliseconds),
        "retention.bytes": "-1",
        "max.message.bytes": str(max_message_bytes),
    }


_CAPTURES = {
    # Retention takes whole segments: closed twice a day, none is kept for a day too long.
    "segment.ms": str(_DAY // 2),
    # A gateway whose clock runs ahead is refused, before it could have ids swept too early.
    "message.timestamp.after.max.ms": str(_HOUR),
}

_COMPACTED = {
    "cleanup.policy": "compact",
    "max.message.bytes": str(sizes.TOPIC),
    "min.cleanable.dirty.ratio": "0.3",
}

TOPICS = (
    Topic(CAPTURES, None, _deleted_after(7 * _DAY) | _CAPTURES),
    Topic(CONVERSATIONS_CHANGELOG, None, _COMPACTED),
    Topic(MESSAGES, None, _deleted_after(7 * _DAY)),
    Topic(ANALYSIS, None, _deleted_after(7 * _DAY)),
    Topic(ANALYSIS_LATER, None, _deleted_after(7 * _DAY)),
    Topic(CONTEXTS_CHANGELOG, None, _COMPACTED),
    Topic(ANALYSES, None, _deleted_after(7 * _DAY)),
    # A day's keys are its own: they must go with it.
    Topic(SPENDING, 1, {**_deleted_after(7 * _DAY), "cleanup.policy": "compact,delete"}),
    Topic(REPLIES, REPLY_PARTITIONS, _deleted_after(_HOUR)),
    Topic(CHATBOTS, 1, _COMPACTED),
    Topic(
        DEAD_LETTERS,
        None,
        {
            **_deleted_after(90 * _DAY, sizes.DEAD_LETTERS_TOPIC),
            # Compacted too: a letter that is written again, or dropped, leaves nothing behind.
            "cleanup.policy": "compact,delete",
        },
    ),
)


def partition_of(conversation_id: bytes, partitions: int) -> int:
    """Return a conversation's partition. A UUIDv5's first bits are uniform: they are a hash's."""
    return int.from_bytes(conversation_id[:4]) % partitions
