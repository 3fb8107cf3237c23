"""The analysis agent: what analyzers say of new messages, and of conversations that went quiet.

A loop around the panel. Whatever is killed, records are read again, and the same rows come again;
what a paid analyzer had found by then is read, not paid for again.
"""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from analysis.panel import Answers, Panel, Wanted
from analysis.protocol import Analyzer, Finding, SubjectError
from schemas import topics
from schemas.analyses import Analysed, analyses_codec
from schemas.chatbots import ChatbotSettings
from schemas.codec import Codec, UndecodableError
from schemas.dead_letters import DeadLetter, Reason, Source, detail_of
from schemas.records import (
    AnalysisItem,
    NewMessage,
    Said,
    analysis_codec,
    encode,
)
from streams import asking
from streams.apply import batches
from streams.asking import NO_MESSAGES, Question
from streams.changelog import Acknowledged, ChangelogEntry, send_changelog
from streams.context import (
    Quiet,
    changes,
    context_key,
    decode_context,
    due_key,
    found_prefix,
    judged,
    take_in,
)
from streams.dead_letters import DeadLetters
from streams.due import DueIndex
from streams.gulp import Gulp, Local
from streams.lanes import Received
from streams.share import Share
from streams.table import WorkerTable
from streams.window import Windows

DUE_AT_ONCE = 200
"""Conversations that one gulp judges, or forgets, at most."""
PATIENCE_SECONDS = 30.0
"""How long what was put off waits for an analyzer that is away; it is put off again then."""
FOUND_AT_ONCE = 10_000
ANALYSES_PER_PART = 200
"""More are split: a hundred flags, and four reasons, may come with each."""

found_codec = Codec(tuple[Finding, ...], version=1)

_AFTER_EVERY_KEY = b"\xff" * 32


class AnalysisAgent:
    """Processes records of `analysis` and `analysis-later`, each partition's in order.

    Args:
        table: contexts, and what paid analyzers found.
        producer: sends the results.
        dead_letters: takes what can't be analysed.
        windows: acks records in order.
        panel: the analyzers.
        settings_of: returns a chatbot's settings as they are now.
        quiet: after how long a conversation is judged as a whole, and forgotten.
        now: the time, in microseconds: stamped into results, and what idle partitions go by.

    """

    def __init__(
        self,
        table: WorkerTable,
        producer: AIOKafkaProducer,
        dead_letters: DeadLetters,
        windows: Windows,
        panel: Panel,
        settings_of: Callable[[bytes], ChatbotSettings],
        quiet: Quiet,
        now: Callable[[], int],
    ) -> None:
        self._table = table
        self._due = DueIndex(table, DUE_AT_ONCE)
        self._share = Share()
        self._producer = producer
        self._dead_letters = dead_letters
        self._windows = windows
        self._panel = panel
        self._settings_of = settings_of
        self._quiet = quiet
        self._now = now
        # Fresh records and those put off share a partition's changelog.
        self._writing: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    def start_over(self) -> None:
        """Forget what is known of partitions that were given up."""
        self._due.start_over()

    async def process(self, partition: int, records: list[Received]) -> None:
        """Process a partition's next records; without any, conversations that went quiet.

        Raises:
            KafkaError: something could not be sent. The records must be read again.
            UndecodableError: the table holds an entry that this release can't read.

        """
        gulp = Gulp()
        counts: Counter[bytes] = Counter()
        share = self._share.messages
        # By records where there are some: a backlog must not look like silence.
        clock = 0 if records else self._now()
        items = list(gulp.items(topics.ANALYSIS, partition, records))
        fresh = (item.conversation_id for item, _, _ in items if item.said is None)
        self._read_contexts(partition, fresh, gulp)
        hurries = self._panel.hurries
        for item, new, source in items:
            known = gulp.contexts[item.conversation_id] if item.said is None else None
            taken = take_in(known, item, new, source.offset, source.index, self._quiet)
            if item.said is None:
                gulp.contexts[item.conversation_id] = taken.context
                clock = max(clock, taken.context.received_at)
            counts[item.chatbot_id] += len(new)
            if counts[item.chatbot_id] <= share and not hurries:
                gulp.ask(self._questions(item, new, taken.before, source), are_new=taken.is_new)
            elif item.said is None:
                gulp.put_off.append(replace(item, said=known.said if known else []))
            else:
                gulp.put_off.append(item)
        if not hurries:
            # No record from the future makes conversations quiet before their time.
            self._sweep(partition, min(clock, self._now()), gulp)
        for conversation_id, after in gulp.contexts.items():
            before = gulp.before[conversation_id]
            if after is not before:
                changed = changes(before, after)
                gulp.local |= changed.local
                gulp.changelog += changed.changelog
        # What an analyzer that is away owes must not hold back what the others say.
        started = time.monotonic()
        await self._answer(partition, records, gulp, patience_seconds=0)
        if gulp.questions:
            self._share.took(len(gulp.questions), time.monotonic() - started)

    async def process_later(self, partition: int, records: list[Received]) -> None:
        """Process a partition's next records that were put off, or are for a re-analysis.

        Raises:
            KafkaError: something could not be sent. The records must be read again.

        """
        gulp = Gulp()
        for item, new, source in gulp.items(topics.ANALYSIS_LATER, partition, records):
            if self._panel.hurries:
                gulp.put_off.append(item)
                continue
            before = take_in(None, item, new, source.offset, source.index, self._quiet).before
            gulp.ask(self._questions(item, new, before, source))
        await self._answer(partition, records, gulp, patience_seconds=PATIENCE_SECONDS)

    def _questions(
        self,
        item: AnalysisItem,
        new: list[NewMessage],
        before: list[tuple[Said, ...]],
        source: Source,
    ) -> Iterator[Question]:
        settings = self._settings_of(item.chatbot_id)
        if new:
            return asking.of_messages(item, new, before, settings, source)
        return asking.of_conversation(item, settings, source)

    def _read_contexts(self, partition: int, conversation_ids: Iterable[bytes], gulp: Gulp) -> None:
        keys = {context_key(each): each for each in conversation_ids if each not in gulp.contexts}
        stored = self._table.read(partition, list(keys))
        for key, conversation_id in keys.items():
            context = decode_context(stored.get(key))
            gulp.contexts[conversation_id] = gulp.before[conversation_id] = context

    def _sweep(self, partition: int, clock: int, gulp: Gulp) -> None:
        """Judge the conversations that are quiet at this time, and forget those long judged."""
        due = self._due.take(partition, clock)
        self._read_contexts(partition, (conversation_id for _, conversation_id in due), gulp)
        for key, conversation_id in due:
            context = gulp.contexts[conversation_id]
            if context is None or due_key(context) != key:
                # Put off since by what is on its way into the store.
                continue
            if context.judged:
                gulp.contexts[conversation_id] = None
                self._forget_found(partition, conversation_id, gulp)
                continue
            gulp.swept = True
            gulp.contexts[conversation_id] = judged(context, self._quiet)
            item = AnalysisItem(
                context.chatbot_id, conversation_id, NO_MESSAGES, context.revision, context.said
            )
            source = Source(topics.ANALYSIS, partition, context.offset, context.number)
            settings = self._settings_of(context.chatbot_id)
            gulp.ask(asking.of_conversation(item, settings, source))

    def _forget_found(self, partition: int, conversation_id: bytes, gulp: Gulp) -> None:
        prefix = found_prefix(conversation_id)
        found = self._table.scan(partition, prefix, prefix + _AFTER_EVERY_KEY, FOUND_AT_ONCE)
        gulp.local.update(dict.fromkeys(key for key, _ in found))
        gulp.changelog += [(key, None) for key, _ in found]

    async def _answer(
        self, partition: int, records: list[Received], gulp: Gulp, patience_seconds: float
    ) -> None:
        """Ask the panel, send what it says, and ack the records when all is acknowledged."""
        questions = gulp.questions
        known = self._recall(partition, gulp)
        subjects = [question.subject for question in questions]
        wanted = {
            number: Wanted(question.item.analyzers, known.get(number, ()))
            for number, question in enumerate(questions)
            if question.item.analyzers or number in known
        }
        for error, source, value in gulp.undecodable:
            await self._dead_letter(gulp, "undecodable_output", error, source, value)
        await self._dead_letter_unasked(gulp)
        failed: defaultdict[int, list[tuple[Analyzer, SubjectError]]] = defaultdict(list)
        judge = self._panel.judge(subjects, wanted, patience_seconds)
        async with contextlib.aclosing(judge) as judging:
            async for answers in judging:
                await self._keep(partition, questions, answers)
                analyzer, now = answers.analyzer, self._now()
                for number, answer in answers.found:
                    question = questions[number]
                    if answer is None:
                        gulp.put_off.append(question.alone(analyzer))
                    elif isinstance(answer, SubjectError):
                        failed[number].append((analyzer, answer))
                    else:
                        gulp.found(question, question.analysis(analyzer, answer, now))
        for number, errors in failed.items():
            # One letter: a second one of the same source would replace it.
            question = questions[number]
            alone = analysis_codec.encode([question.alone(*(each for each, _ in errors))])
            failure = errors[0][1]
            await self._dead_letter(gulp, "failed_analysis", failure, question.source, alone)
        gulp.written += await self._send(partition, gulp)
        if gulp.swept:
            # No record is read again for a conversation that counts as judged.
            await asyncio.gather(*gulp.written)

        def done() -> None:
            for record in records:
                record.ack()

        await self._write(partition, gulp.local, gulp.changelog, gulp.written, done)

    async def _dead_letter_unasked(self, gulp: Gulp) -> None:
        """Dead-letter what names analyzers of which none is here: nobody would be asked."""
        for question in gulp.questions:
            names = question.item.analyzers
            if names and not self._panel.has_any(names):
                detail = SubjectError(f"there is no analyzer {', '.join(names)} here")
                alone = analysis_codec.encode([question.with_analyzers(names)])
                await self._dead_letter(gulp, "failed_analysis", detail, question.source, alone)

    def _recall(self, partition: int, gulp: Gulp) -> dict[int, set[tuple[str, str]]]:
        """Add what paid analyzers found before a replay, and return whose it is."""
        questions = gulp.questions
        keys = [
            (number, analyzer, question.found_key(analyzer))
            for analyzer in self._panel.analyzers
            if analyzer.paid
            for number, question in enumerate(questions)
            # A re-analysis asks again: that is what it is for.
            if not question.item.run
        ]
        entries = self._table.read(partition, [key for _, _, key in keys])
        known: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
        for number, analyzer, key in keys:
            if key not in entries:
                continue
            with contextlib.suppress(UndecodableError):  # at worst it is paid for again
                found = found_codec.decode(entries[key])
                analysis = questions[number].analysis(analyzer, found, self._now())
                gulp.found(questions[number], analysis)
                known[number].add((analyzer.name, analyzer.version))
        return known

    async def _keep(self, partition: int, questions: list[Question], answers: Answers) -> None:
        """Keep what a paid analyzer found, before anything else can go wrong.

        Of a re-analysis nothing is kept: it would not be read, and a conversation that is long
        forgotten would keep it for ever.
        """
        analyzer = answers.analyzer
        if not analyzer.paid:
            return
        found: Local = {
            questions[number].found_key(analyzer): found_codec.encode(answer)
            for number, answer in answers.found
            if isinstance(answer, tuple) and not questions[number].item.run
        }
        if found:
            await self._write(partition, found, list(found.items()), [], lambda: None)

    async def _write(
        self,
        partition: int,
        local: Local,
        changelog: list[ChangelogEntry],
        written: list[Acknowledged],
        done: Callable[[], None],
    ) -> None:
        """Write table entries, and call `done` when they and all else is acknowledged."""
        async with self._writing[partition]:
            sent = await send_changelog(
                self._producer, topics.CONTEXTS_CHANGELOG, partition, changelog
            )
            self._table.stage(partition, {key: value for key, value in local.items() if value})

            def finished() -> None:
                if sent or local:
                    acknowledged = [(each.result().offset, count) for each, count in sent]
                    self._table.commit(partition, local, acknowledged)
                    self._due.committed(
                        partition, (key for key, value in local.items() if value is not None)
                    )
                done()

            written = [*written, *(each for each, _ in sent)]
            await self._windows.add(partition, written, finished)

    async def _send(self, partition: int, gulp: Gulp) -> list[Acknowledged]:
        send = self._producer.send
        found = [
            encode(Analysed(chatbot_id, conversation_id, said[start : start + ANALYSES_PER_PART]))
            for conversation_id, (chatbot_id, said) in gulp.analyses.items()
            for start in range(0, len(said), ANALYSES_PER_PART)
        ]
        return [
            await send(topic, codec.encode_parts(batch), partition=partition)
            for topic, codec, parts in (
                (topics.ANALYSES, analyses_codec, found),
                (topics.ANALYSIS_LATER, analysis_codec, map(encode, gulp.put_off)),
            )
            for batch in batches(parts, len)
        ]

    async def _dead_letter(
        self, gulp: Gulp, reason: Reason, error: Exception, source: Source, value: bytes
    ) -> None:
        letter = DeadLetter(reason, detail_of(error), source)
        gulp.written.append(await self._dead_letters.send(letter, value))
