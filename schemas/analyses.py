"""The records of topic `analyses`: what analysis found, ready to be rows.

As in `schemas/records.py` all are MessagePack arrays whose members are only ever added at the end,
with defaults, and the bounds are those that ClickHouse's columns rely on. Analyses may come in any
order: each carries all that its rows hold.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.analysis import (
    MAX_LABEL_CHARACTERS,
    MAX_REASONING_CHARACTERS,
    MAX_VOCABULARY,
    Kind,
)
from schemas.codec import Codec
from schemas.records import AnalyzerName, Id, Number, Position, ReceivedAt, Uuid

WHOLE_CONVERSATION = ""
"""The message's id in an analysis of a conversation; no message has it."""

Label = Annotated[str, Meta(max_length=MAX_LABEL_CHARACTERS)]


class Finding(Struct, frozen=True, array_like=True, gc=False):
    """One answer about one subject: what becomes a row.

    Attributes:
        kind: what was asked.
        label: sentiment's label, the intent or `none`, the behaviour, the resolution; empty for
            topics and flags.
        labels: topics, at most three, the first the most important; or flags, in the order of the
            vocabulary. Empty where there are none, which is an answer too.
        score: -1 to 1, graded; sentiment only, None for the others.
        reasoning: why, in the analyzer's words; empty where it gives none.

    """

    kind: Kind
    label: Label = ""
    labels: Annotated[tuple[Label, ...], Meta(max_length=MAX_VOCABULARY)] = ()
    score: Annotated[float, Meta(ge=-1, le=1)] | None = None
    reasoning: Annotated[str, Meta(max_length=MAX_REASONING_CHARACTERS)] = ""


class Analysis(Struct, array_like=True, gc=False):
    """All that one analyzer said of a message or a conversation at once.

    Attributes:
        message_id: the message's; WHOLE_CONVERSATION for a conversation.
        analyzer: who answered.
        version: the analyzer's, or of what it answers with.
        received_at: when the message was received; of a conversation, when it was last changed as
            of its revision. Fixed by the ids and the revision, as it chooses the row's partition.
        position: the message's; of a conversation, its last change's.
        revision: of the conversation that was judged; 0 for a message.
        analysed_at: when the answer was given.
        findings: the answer to each kind that was asked.
        run: 0, or the number of the re-analysis that asked.

    """

    message_id: Id
    analyzer: AnalyzerName
    version: AnalyzerName
    received_at: ReceivedAt
    position: Position
    revision: Number
    analysed_at: ReceivedAt
    findings: tuple[Finding, ...]
    run: Number = 0


class Analysed(Struct, array_like=True, gc=False):
    """What was found about one conversation and its messages: a part of an `analyses` record."""

    chatbot_id: Uuid
    conversation_id: Uuid
    results: list[Analysis]


analyses_codec = Codec(list[Analysed], version=1)
