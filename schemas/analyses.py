"""The records of topic `analyses`: what analysis found, ready to be rows.

As in `schemas/records.py` all are MessagePack arrays whose members are only ever added at the end,
with defaults, and the bounds are those that ClickHouse's columns rely on. Results may come in any
order: each carries all that its row holds.
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
"""The message's id in a result about a conversation; no message has it."""

Label = Annotated[str, Meta(max_length=MAX_LABEL_CHARACTERS)]


class Analysis(Struct, array_like=True, gc=False):
    """One answer of one analyzer, about a message or a conversation.

    Attributes:
        message_id: the message's; WHOLE_CONVERSATION for a conversation.
        kind: what was asked.
        analyzer: who answered.
        version: the analyzer's, or of what it answers with.
        score: -1 to 1; None where the kind has none.
        label: the one label of a kind that has one, else empty.
        labels: topics or flags, else empty.
        reasoning: why, in the analyzer's words, or empty.
        received_at: when the message was received; of a conversation, when it was last changed as
            of its revision. Fixed by the ids and the revision, as it chooses the row's partition.
        position: the message's; of a conversation, its last change's.
        revision: of the conversation that was judged; 0 for a message.
        analysed_at: when the answer was given.
        run: 0, or the number of the re-analysis that asked.

    """

    message_id: Id
    kind: Kind
    analyzer: AnalyzerName
    version: AnalyzerName
    score: Annotated[float, Meta(ge=-1, le=1)] | None
    label: Label
    labels: Annotated[tuple[Label, ...], Meta(max_length=MAX_VOCABULARY)]
    reasoning: Annotated[str, Meta(max_length=MAX_REASONING_CHARACTERS)]
    received_at: ReceivedAt
    position: Position
    revision: Number
    analysed_at: ReceivedAt
    run: Number = 0


class Analysed(Struct, array_like=True, gc=False):
    """What was found about one conversation and its messages: a part of an `analyses` record."""

    chatbot_id: Uuid
    conversation_id: Uuid
    results: list[Analysis]


analyses_codec = Codec(list[Analysed], version=1)
