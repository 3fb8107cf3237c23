"""From items of `analysis` to what analyzers are asked, and from their answers to rows. Pure."""

from collections.abc import Hashable, Iterator, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from analysis.protocol import Analyzer, Finding, Subject, Vocabulary, family
from schemas.analyses import WHOLE_CONVERSATION, Analysis
from schemas.analysis import CONVERSATION_KINDS
from schemas.chatbots import ChatbotSettings
from schemas.dead_letters import Source
from schemas.records import AnalysisItem, NewMessage, Said, encode
from schemas.times import LAST_INSTANT
from streams.context import found_key

NO_MESSAGES = msgspec.Raw(encode([]))

_NO_REVISION = -1
"""A message's: no conversation has it."""


class Question(Struct, frozen=True, gc=False):
    """A subject, and all that its rows, or its letter, need.

    Attributes:
        subject: what analyzers are asked about.
        item: whence it came.
        message: the one it is about, None for the conversation as a whole.
        said: what was said before it.
        part_of: the record that it came in.
        part: which part of it this is.

    """

    subject: Subject
    item: AnalysisItem
    message: NewMessage | None
    said: tuple[Said, ...]
    part_of: Source
    part: int

    @property
    def source(self) -> Source:
        """What is at fault where it can't be analysed."""
        return replace(self.part_of, index=self.part)

    @property
    def about(self) -> tuple[Hashable, ...]:
        """What is asked of whom: the same again would have the same rows."""
        item = self.item
        revision = item.revision if self.message is None else _NO_REVISION
        return item.conversation_id, self.position, revision, item.run, *item.analyzers

    @property
    def position(self) -> int:
        """Of the message; of a conversation, that of its newest message."""
        return self.message.position if self.message else self.said[-1].position

    def found_key(self, analyzer: Analyzer) -> bytes:
        """Return the key that the analyzer's findings about it are kept under."""
        return found_key(
            self.item.conversation_id, self.position, analyzer.name, analyzer.version,
            whole=self.message is None,
        )  # fmt: skip

    def analysis(self, analyzer: Analyzer, findings: tuple[Finding, ...], now: int) -> Analysis:
        """Return what the analyzer said of it now, in microseconds."""
        item, message = self.item, self.message
        if message is None:
            message_id, position, revision = WHOLE_CONVERSATION, self.position, item.revision
            # A revision is a time too: that of the capture that changed the conversation.
            received_at = min(revision, LAST_INSTANT)
        else:
            message_id, position, revision = message.id, message.position, 0
            received_at = message.received_at
        return Analysis(
            message_id, analyzer.name, analyzer.version, received_at, position, revision, now,
            findings, item.run,
        )  # fmt: skip

    def alone(self, *analyzers: Analyzer) -> AnalysisItem:
        """Return an item that asks these analyzers about it again, and no other.

        It names their families: another model may be there by then.
        """
        return self.with_analyzers([family(analyzer.name) for analyzer in analyzers])

    def with_analyzers(self, names: list[str]) -> AnalysisItem:
        """Return an item of this question alone, for analyzers of these names."""
        messages = msgspec.Raw(encode([self.message])) if self.message else NO_MESSAGES
        return replace(self.item, messages=messages, said=list(self.said), analyzers=names)


def of_messages(
    item: AnalysisItem,
    new: Sequence[NewMessage],
    before: Sequence[tuple[Said, ...]],
    settings: ChatbotSettings,
    source: Source,
) -> Iterator[Question]:
    """Return the questions about an item's messages; none where the chatbot has all switched off.

    Args:
        item: the item.
        new: its messages.
        before: what was said before each.
        settings: the chatbot's.
        source: the item's; its messages are counted on from it.

    """
    vocabulary, analyses = _vocabulary(settings), settings.message_analyses
    chatbot_id, part = item.chatbot_id, source.index
    for message, said in zip(new, before, strict=True):
        part += 1
        kinds = analyses.get(message.role)
        if kinds:
            subject = Subject(chatbot_id, message, said, kinds, vocabulary)
            yield Question(subject, item, message, said, source, part)


def of_conversation(
    item: AnalysisItem, settings: ChatbotSettings, source: Source
) -> Iterator[Question]:
    """Return the question about a conversation as a whole, of which the item says what was said."""
    kinds = CONVERSATION_KINDS & settings.analyses
    said = tuple(item.said or ())
    if kinds and said:
        subject = Subject(item.chatbot_id, None, said, kinds, _vocabulary(settings))
        yield Question(subject, item, None, said, source, source.index)


def _vocabulary(settings: ChatbotSettings) -> Vocabulary:
    if not settings.intents and not settings.flags:
        return _DEFAULT
    return Vocabulary(settings.intents or _DEFAULT.intents, settings.flags or _DEFAULT.flags)


_DEFAULT = Vocabulary()
