"""Has what is in ClickHouse analysed again, by analyzers that have changed or are new."""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from openbat.chatbots import find
from openbat.clickhouse import clickhouse_client
from openbat.connection import Connection
from openbat.kafka import captures_partitions, make_reader, read_registry, start_producer
from openbat.settings import Settings
from schemas import sizes, topics
from schemas.capture import Role
from schemas.records import AnalysisItem, NewMessage, analysis_codec, encode
from schemas.times import microseconds
from schemas.topics import partition_of
from streams.apply import batches
from streams.asking import NO_MESSAGES
from streams.context import SAID_MESSAGES, remembered

ITEM_BYTES = 64 * sizes.KIB
"""When an item is closed; its last message may exceed it."""
POLL_SECONDS = 0.5

_CONVERSATIONS = """
SELECT conversation_id, revision FROM openbat.conversations
WHERE chatbot_id = {chatbot:UUID} AND conversation_id IN (
    SELECT conversation_id FROM openbat.message_rows
    WHERE chatbot_id = {chatbot:UUID} AND received_at >= fromUnixTimestamp64Micro({since:Int64})
)
"""

_MESSAGES = """
SELECT conversation_id, message_id, role, content, toUnixTimestamp64Micro(sent_at),
    toUnixTimestamp64Micro(received_at), position
FROM openbat.messages
WHERE chatbot_id = {chatbot:UUID} AND conversation_id IN (
    SELECT conversation_id FROM openbat.message_rows
    WHERE chatbot_id = {chatbot:UUID} AND received_at >= fromUnixTimestamp64Micro({since:Int64})
)
ORDER BY conversation_id, position
"""


class ReanalysisError(Exception):
    """Raised when nothing can be analysed again; says why."""


class Wanted(NamedTuple):
    """What is to be analysed again.

    Attributes:
        chatbot: its name or id.
        since: when the first of its messages was received.
        analyzers: those that are asked, none for all that the workers have.

    """

    chatbot: str
    since: datetime
    analyzers: Sequence[str]


class Totals(Struct):
    """What was sent to the analysis workers."""

    conversations: int = 0
    messages: int = 0

    def __str__(self) -> str:
        return f"conversations={self.conversations} messages={self.messages}"


def items_of(
    chatbot_id: bytes,
    conversation_id: bytes,
    revision: int,
    messages: Sequence[NewMessage],
    since: int,
    analyzers: Sequence[str],
    run: int,
) -> Iterator[AnalysisItem]:
    """Yield a conversation's items: its messages since then, and itself as a whole.

    Args:
        chatbot_id: whose it is.
        conversation_id: the conversation.
        revision: its newest.
        messages: all of its messages, in order.
        since: when the first that counts was received, in microseconds.
        analyzers: those that are asked.
        run: the number of the re-analysis.

    """
    said = [remembered(message) for message in messages]
    wanted = [at for at, message in enumerate(messages) if message.received_at >= since]
    for chunk in batches(wanted, lambda at: len(encode(messages[at])), ITEM_BYTES):
        before = said[max(0, chunk[0] - SAID_MESSAGES) : chunk[0]]
        encoded = msgspec.Raw(encode([messages[at] for at in chunk]))
        yield AnalysisItem(
            chatbot_id, conversation_id, encoded, revision, before, list(analyzers), run
        )
    if said:
        yield AnalysisItem(
            chatbot_id, conversation_id, NO_MESSAGES, revision, said[-SAID_MESSAGES:],
            list(analyzers), run,
        )  # fmt: skip


async def reanalyze(
    connection: Connection, settings: Settings, wanted: Wanted, *, wait: bool
) -> Totals:
    """Send what is wanted to the analysis workers; with `wait`, return when they are done.

    It goes behind what is fresh, so that it keeps no chatbot's new messages waiting.

    Raises:
        ChatbotError: there is no such chatbot.
        ReanalysisError: it has no message since then.
        ClickHouseUnreachableError, UnreachableError: there is no stack.

    """
    bot = find(await read_registry(connection), wanted.chatbot)
    chatbot_id = uuid.UUID(bot.id).bytes
    since = microseconds(wanted.since)
    parameters = {"chatbot": bot.id, "since": since}
    partitions = await captures_partitions(connection)
    client = await asyncio.to_thread(
        clickhouse_client, settings.clickhouse_url, settings.clickhouse_ca_file
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    totals = Totals()
    producer = await start_producer(connection, sizes.BATCH)
    try:
        with Progress(*columns, console=console) as progress:
            found = await asyncio.to_thread(client.query, _CONVERSATIONS, parameters=parameters)
            revisions = dict(found.result_rows)
            if not revisions:
                raise ReanalysisError(
                    f"{bot.name} has no message since {wanted.since:%Y-%m-%d %H:%M}"
                )
            sending = progress.add_task("sending", total=len(revisions))
            run = time.time_ns() // 1000
            starts = await _ends(connection, partitions)
            async for conversation_id, messages in _conversations(client, parameters):
                items = items_of(
                    chatbot_id, conversation_id.bytes, revisions[conversation_id], messages, since,
                    wanted.analyzers, run,
                )  # fmt: skip
                partition = partition_of(conversation_id.bytes, partitions)
                for item in items:
                    await producer.send(
                        topics.ANALYSIS_LATER, analysis_codec.encode([item]), partition=partition
                    )
                totals.conversations += 1
                totals.messages += sum(message.received_at >= since for message in messages)
                progress.advance(sending)
            await producer.flush()
            if wait:
                await _wait(connection, progress, starts, await _ends(connection, partitions))
    finally:
        await producer.stop()
        client.close()
    return totals


async def _conversations(
    client: Any, parameters: dict[str, Any]
) -> AsyncIterator[tuple[uuid.UUID, list[NewMessage]]]:
    """Yield conversations with all their messages, in order."""
    stream = await asyncio.to_thread(client.query_rows_stream, _MESSAGES, parameters=parameters)
    with stream as rows:
        grouped = _grouped(rows)
        while (found := await asyncio.to_thread(next, grouped, None)) is not None:
            yield found


def _grouped(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[uuid.UUID, list[NewMessage]]]:
    for conversation_id, group in itertools.groupby(rows, lambda row: row[0]):
        messages = []
        for _, message_id, role, content, sent_at, received_at, position in group:
            known: Role = role
            messages.append(NewMessage(message_id, known, content, sent_at, received_at, position))
        yield conversation_id, messages


async def _ends(connection: Connection, partitions: int) -> dict[TopicPartition, int]:
    sources = [TopicPartition(topics.ANALYSIS_LATER, number) for number in range(partitions)]
    consumer = make_reader(connection)
    try:
        async with connection.reaching():
            await consumer.start()
        ends: dict[TopicPartition, int] = await consumer.end_offsets(sources)
        return ends
    finally:
        await consumer.stop()


async def _wait(
    connection: Connection,
    progress: Progress,
    starts: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
) -> None:
    """Return when the analysis workers have committed all up to these ends."""
    sent = sum(ends[source] - starts[source] for source in ends)
    analysing = progress.add_task("analysing", total=sent)
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        while not progress.tasks[-1].finished:
            committed = await admin.list_consumer_group_offsets(topics.ANALYSIS_GROUP)
            done = 0
            for source, end in ends.items():
                at = committed[source].offset if source in committed else 0
                done += min(max(at - starts[source], 0), end - starts[source])
            progress.update(analysing, completed=done)
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await admin.close()


def parse_since(text: str) -> datetime:
    """Return the time that a person wrote. Raises ReanalysisError where it is none."""
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        raise ReanalysisError(
            f"--since {text}: expected a date or time such as 2026-11-01 or 2026-11-01T12:00"
        ) from None
    return since if since.tzinfo else since.replace(tzinfo=UTC)
