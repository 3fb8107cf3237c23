"""The conversations agent: deduplicates, upserts, fans out. A loop around `streams.apply`."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas import sizes, topics
from schemas.codec import UndecodableError
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
from streams.apply import apply_record, batches, needed_keys
from streams.dead_letters import DeadLetters
from streams.lanes import Received
from streams.table import ConversationsTable
from streams.window import Windows

Acknowledged = asyncio.Future[Any]
ChangelogEntry = tuple[bytes, bytes | None]


class ConversationsAgent:
    """Processes records of `captures`, in order of their offsets."""

    def __init__(
        self,
        table: ConversationsTable,
        producer: AIOKafkaProducer,
        dead_letters: DeadLetters,
        windows: Windows,
    ) -> None:
        self._table = table
        self._producer = producer
        self._dead_letters = dead_letters
        self._windows = windows

    async def process(self, partition: int, records: list[Received]) -> None:
        """Process a partition's next records, in order.

        Raises:
            KafkaError: something could not be sent. The records must be read again.
            UndecodableError: the table holds an entry that this release can't read.

        """
        written: list[Acknowledged] = []
        changes: list[Change] = []
        items: list[AnalysisItem] = []
        local: dict[bytes, bytes] = {}
        entries: list[ChangelogEntry] = []
        for offset, value, _ in records:
            try:
                record = decode_captures(value)
            except UndecodableError as error:
                written.append(await self._dead_letter(value, error, partition, offset, -1))
                continue
            captures = await self._decode(record, partition, offset, written)
            known = self._table.read(partition, needed_keys(captures))
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
        changelog = await self._send_changelog(partition, entries)
        written += [sent for sent, _ in changelog]
        written += await self._send_outputs(partition, changes, items)

        def done() -> None:
            if changelog:
                acknowledged = [(sent.result().offset, count) for sent, count in changelog]
                self._table.commit(partition, local, acknowledged)
            for _, _, ack in records:
                ack()

        await self._windows.add(partition, written, done)

    async def _decode(
        self, record: CapturesRecord, partition: int, offset: int, written: list[Acknowledged]
    ) -> list[Captured | None]:
        captures: list[Captured | None] = []
        for index, frame in enumerate(record.captures):
            try:
                captures.append(decode_captured(frame))
            except UndecodableError as error:
                captures.append(None)
                written.append(await self._dead_letter(frame, error, partition, offset, index))
        return captures

    async def _dead_letter(
        self, value: bytes, error: Exception, partition: int, offset: int, index: int
    ) -> Acknowledged:
        return await self._dead_letters.send(
            value, str(error), topics.CAPTURES, partition, offset, index
        )

    async def _send_changelog(
        self, partition: int, entries: list[ChangelogEntry]
    ) -> list[tuple[Acknowledged, int]]:
        """Send table entries as batches; return each one's acknowledgement and its size."""
        builders = [self._producer.create_batch()] if entries else []
        for key, value in entries:
            if builders[-1].append(key=key, value=value, timestamp=None) is None:
                builders.append(self._producer.create_batch())
                builders[-1].append(key=key, value=value, timestamp=None)
        sent = []
        for builder in builders:
            builder.close()
            acknowledged = await self._producer.send_batch(
                builder, topics.CONVERSATIONS_CHANGELOG, partition=partition
            )
            sent.append((acknowledged, builder.record_count()))
        return sent

    async def _send_outputs(
        self, partition: int, changes: list[Change], items: list[AnalysisItem]
    ) -> list[Acknowledged]:
        send = self._producer.send
        return [
            await send(topics.MESSAGES, messages_codec.encode(batch), partition=partition)
            for batch in batches(changes, lambda change: len(change.state) + len(change.messages))
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
