"""What one call of the analysis agent takes in, and what it is about to write. Pure."""

from collections.abc import Hashable, Iterable, Iterator

from schemas.analyses import Analysis
from schemas.codec import UndecodableError
from schemas.dead_letters import WHOLE_RECORD, Source
from schemas.records import AnalysisItem, NewMessage, analysis_codec, decode_new_messages
from streams.asking import Question
from streams.changelog import Acknowledged, ChangelogEntry
from streams.context import Context
from streams.lanes import Received

Local = dict[bytes, bytes | None]
"""Entries of the local table, None for one that goes."""


class Gulp:
    """A partition's records that are processed together, and all that comes of them.

    Attributes:
        undecodable: what could not be decoded: why, where, and a record of it.
        questions: what analyzers are asked.
        analyses: what they said, by conversation, after its chatbot.
        put_off: what is asked later.
        contexts: of conversations, as they are after it.
        before: and as they were.
        local: entries that the table gets,
        changelog: and its changelog.
        written: acknowledgements to wait for.
        swept: whether a conversation was judged without a record of its own.

    """

    def __init__(self) -> None:
        self.undecodable: list[tuple[UndecodableError, Source, bytes]] = []
        self.questions: list[Question] = []
        self.analyses: dict[bytes, tuple[bytes, list[Analysis]]] = {}
        self.put_off: list[AnalysisItem] = []
        self.contexts: dict[bytes, Context | None] = {}
        self.before: dict[bytes, Context | None] = {}
        self.local: Local = {}
        self.changelog: list[ChangelogEntry] = []
        self.written: list[Acknowledged] = []
        self.swept = False
        self._asked = set[Hashable]()

    def items(
        self, topic: str, partition: int, records: Iterable[Received]
    ) -> Iterator[tuple[AnalysisItem, list[NewMessage], Source]]:
        """Yield the records' items, each with its messages and its source.

        The parts of a record are counted from 0: of each item its conversation, then its messages.
        """
        for offset, value, _, _ in records:
            source = Source(topic, partition, offset, WHOLE_RECORD)
            try:
                items = analysis_codec.decode(value)
            except UndecodableError as error:
                self.undecodable.append((error, source, value))
                continue
            number = 0
            for item in items:
                source = Source(topic, partition, offset, number)
                number += 1
                try:
                    new = decode_new_messages(item.messages)
                except UndecodableError as error:
                    self.undecodable.append((error, source, analysis_codec.encode([item])))
                    continue
                number += len(new)
                yield item, new, source

    def ask(self, questions: Iterable[Question], *, are_new: bool = False) -> None:
        """Take in questions, but for those that are here already, unless they can't be.

        What was put off or sent before a kill comes again, often in one gulp with the first: none
        is paid for twice.
        """
        if are_new:
            self.questions.extend(questions)
            return
        # Those that were new are noted when they are compared with: as a rule, never.
        self._asked.update(each.about for each in self.questions[len(self._asked) :])
        for question in questions:
            about = question.about
            if about not in self._asked:
                self._asked.add(about)
                self.questions.append(question)

    def found(self, question: Question, analysis: Analysis) -> None:
        """Take in what an analyzer said."""
        item = question.item
        known = self.analyses.get(item.conversation_id)
        if known is None:
            self.analyses[item.conversation_id] = item.chatbot_id, [analysis]
        else:
            known[1].append(analysis)
