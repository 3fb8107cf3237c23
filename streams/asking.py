"""From items of `analysis` to what analyzers are asked, and from their answers to rows. Pure."""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from analysis.protocol import Analyzer, Finding, Subject, Vocabulary, family
from schemas.analyses import WHOLE_CONVERSATION, Analysis
from schemas.analysis import CONVERSATION_KINDS, MESSAGE_KINDS
from schemas.chatbots import ChatbotSettings
from schemas.dead_letters import Source
from schemas.records import AnalysisItem, NewMessage, Said, encode
from schemas.times import LAST_INSTANT
from streams.context import found_key

NO_MESSAGES = msgspec.Raw(encode([]))

About = tuple[bytes, int, bool, int, tuple[str, ...], int]
"""A conversation, a position in it, whether it is the whole up to there, its revision then, the
analyzers that are named, the re-analysis."""


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
    def about(self) -> About:
        """What is asked of whom: the same again would have the same rows."""
        item, message, analyzers = self.item, self.message, tuple(self.item.analyzers)
        if message:
            return item.conversation_id, message.position, False, 0, analyzers, item.run
        return item.conversation_id, self.position, True, item.revision, analyzers, item.run

    @property
    def position(self) -> int:
        """Of the message; of a conversation, that of its newest message."""
        return self.message.position if self.message else self.said[-1].position

    @property
    def _received_at(self) -> int:
        # A conversation's revision is a time too: that of the capture that changed it.
        return self.message.received_at if self.message else min(self.item.revision, LAST_INSTANT)

    def found_key(self, analyzer: Analyzer) -> bytes:
        """Return the key that the analyzer's findings about it are kept under."""
        return found_key(
            self.item.conversation_id, self.position, analyzer.name, analyzer.version,
            whole=self.message is None,
        )  # fmt: skip

    def rows(self, analyzer: Analyzer, findings: Sequence[Finding], now: int) -> list[Analysis]:
        """Return a result per finding, analysed now, in microseconds."""
        item, message, name, version = self.item, self.message, analyzer.name, analyzer.version
        message_id, revision = (message.id, 0) if message else (WHOLE_CONVERSATION, item.revision)
        received_at, position = self._received_at, self.position
        return [
            Analysis(
                message_id, each.kind, name, version, each.score, each.label, each.labels,
                each.reasoning, received_at, position, revision, now, item.run,
            )
            for each in findings
        ]  # fmt: skip

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
    vocabulary = _vocabulary(settings)
    for at, (message, said) in enumerate(zip(new, before, strict=True), start=1):
        kinds = MESSAGE_KINDS[message.role] & settings.analyses
        if kinds:
            subject = Subject(item.chatbot_id, message, said, kinds, vocabulary)
            yield Question(subject, item, message, said, source, source.index + at)


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
