"""The conversations agent: deduplicates, upserts, fans out. A loop around `streams.apply`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer

from schemas import sizes, topics
from schemas.codec import UndecodableError
from schemas.dead_letters import WHOLE_RECORD, DeadLetter, Reason, Source, detail_of
from schemas.records import (
    AnalysisItem,
    Captured,
    CaptureResult,
    CapturesRecord,
    Change,
    RepliesRecord,
    analysis_codec,
    decode_captured,
    decode_captures,
    messages_codec,
    replies_codec,
)
from streams.apply import apply_record, batches, failing, needed_keys
from streams.changelog import Acknowledged, ChangelogEntry, send_changelog
from streams.dead_letters import DeadLetters
from streams.lanes import Received
from streams.sweep import Sweeper
from streams.table import WorkerTable
from streams.window import Windows

if TYPE_CHECKING:
    from streams.tracing import Spans, StreamTracer


class ConversationsAgent:
    """Processes records of `captures`, in order of their offsets.

    Args:
        table: what is known.
        producer: sends replies, the table's changelog, and outputs.
        dead_letters: where what can't be processed goes.
        windows: acks records in order.
        sweeper: removes what the table may forget.
        tracer: goes on with the traces that records come with, None where they end here.

    """

    def __init__(
        self,
        table: WorkerTable,
        producer: AIOKafkaProducer,
        dead_letters: DeadLetters,
        windows: Windows,
        sweeper: Sweeper,
        tracer: "StreamTracer | None" = None,
    ) -> None:
        self._table = table
        self._producer = producer
        self._dead_letters = dead_letters
        self._windows = windows
        self._sweeper = sweeper
        self._tracer = tracer

    async def process(self, partition: int, records: list[Received]) -> None:
        """Process a partition's next records, in order.

        Raises:
            KafkaError: something could not be sent. The records must be read again.
            UndecodableError: the table holds an entry that this release can't read.

        """
        spans = None if self._tracer is None else self._tracer.processing(partition, records)
        if spans is None:
            written, done = await self._send(partition, records, None)
        else:
            with spans.logged():
                written, done = await self._send(partition, records, spans)
        await self._windows.add(partition, written, done)

    async def _send(
        self, partition: int, records: list[Received], spans: "Spans | None"
    ) -> tuple[list[Acknowledged], Callable[[], None]]:
        """Send all that records lead to; return what is on its way, and what to do after it."""
        written: list[Acknowledged] = []
        changes: list[Change] = []
        items: list[AnalysisItem] = []
        local: dict[bytes, bytes | None] = {}
        record_time = 0
        entries: list[ChangelogEntry] = []
        for offset, value, _, _ in records:
            try:
                record = decode_captures(value)
            except UndecodableError as error:
                source = Source(topics.CAPTURES, partition, offset, WHOLE_RECORD)
                written.append(await self._dead_letter("undecodable_record", error, source, value))
                continue
            captures = await self._decode(record, partition, offset, written)
            record_time = max([record_time, *[each.received_at for each in captures if each]])
            known = self._table.read(partition, needed_keys(captures))
            try:
                applied = apply_record(captures, record.generation, offset, known)
            except UndecodableError:
                raise
            except Exception:  # noqa: BLE001 - raised again where no single capture is at fault
                for index, fault in failing(captures, record.generation, offset, known):
                    captures[index] = None
                    source = Source(topics.CAPTURES, partition, offset, index)
                    frame = record.captures[index]
                    written.append(await self._dead_letter("failed_capture", fault, source, frame))
                applied = apply_record(captures, record.generation, offset, known)
            self._table.stage(partition, applied.local)
            changes += applied.messages
            items += applied.analysis
            local |= applied.local
            entries += applied.changelog
            reply = _reply(partition, offset, applied.results)
            written.append(
                await self._producer.send(topics.REPLIES, reply, partition=record.reply_partition)
            )
        swept = self._sweeper.sweep(partition, record_time)
        local |= swept.local
        entries += swept.changelog
        changelog = await send_changelog(
            self._producer, topics.CONVERSATIONS_CHANGELOG, partition, entries
        )
        written += [sent for sent, _ in changelog]
        written += await self._send_outputs(partition, changes, items, spans)

        def done() -> None:
            if changelog or local:
                acknowledged = [(sent.result().offset, count) for sent, count in changelog]
                self._table.commit(partition, local, acknowledged)
            for record in records:
                record.ack()
            if spans is not None:
                spans.end()

        return written, done

    async def _decode(
        self, record: CapturesRecord, partition: int, offset: int, written: list[Acknowledged]
    ) -> list[Captured | None]:
        captures: list[Captured | None] = []
        for index, frame in enumerate(record.captures):
            try:
                captures.append(decode_captured(frame))
            except UndecodableError as error:
                captures.append(None)
                source = Source(topics.CAPTURES, partition, offset, index)
                written.append(await self._dead_letter("undecodable_capture", error, source, frame))
        return captures

    async def _dead_letter(
        self, reason: Reason, error: Exception, source: Source, value: bytes
    ) -> Acknowledged:
        return await self._dead_letters.send(DeadLetter(reason, detail_of(error), source), value)

    async def _send_outputs(
        self,
        partition: int,
        changes: list[Change],
        items: list[AnalysisItem],
        spans: "Spans | None",
    ) -> list[Acknowledged]:
        send = self._producer.send
        records = [
            messages_codec.encode(batch)
            for batch in batches(changes, lambda change: len(change.state) + len(change.messages))
        ]
        # Rows are inserted in order: with the last record all of them are there.
        headers = [None] * (len(records) - 1) + [spans.headers if spans is not None else None]
        return [
            await send(topics.MESSAGES, record, partition=partition, headers=each)
            for record, each in zip(records, headers, strict=False)
        ] + [
            await send(topics.ANALYSIS, analysis_codec.encode(batch), partition=partition)
            for batch in batches(items, lambda item: len(item.messages))
        ]


def _reply(partition: int, offset: int, results: list[CaptureResult]) -> bytes:
    """Encode a reply; without the names of fields that were left out, where it gets too large."""
    encoded = replies_codec.encode(RepliesRecord(partition, offset, results))
    if len(encoded) <= sizes.OUTPUT_RECORD:
        return encoded
    counts = [CaptureResult(result.stored) for result in results]
    return replies_codec.encode(RepliesRecord(partition, offset, counts))
