"""What must be in ClickHouse, and what clients must have been told, by what is in `captures`.

The model runs over the records of `captures` in the order of their offsets. It is the contract in
sets and lists, and knows nothing of the workers.
"""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from aiokafka import AIOKafkaConsumer, TopicPartition

from openbat.connection import Connection
from openbat.kafka import captures_partitions, make_reader
from schemas import topics
from schemas.records import (
    Captured,
    analysis_codec,
    captures_codec,
    decode_captured,
    decode_new_messages,
)
from tests.crash.clients import Journal, Posted
from tests.property.model import Model, ModelConversation
from tests.stack import Stack

STILL_SECONDS = 20.0
"""Without another row, nothing more is to come."""
MOST_SHOWN = 20


@dataclass
class Frame:
    """A capture in the log, and how many of its messages the model found new."""

    captured: Captured
    stored: int


@dataclass
class Expected:
    """The model after the log, and the log's captures by conversation."""

    model: Model = field(default_factory=Model)
    frames: dict[str, list[Frame]] = field(default_factory=lambda: defaultdict(list))

    @property
    def messages(self) -> int:
        return sum(len(found.messages) for found in self.model.conversations.values())


async def read_topic(connection: Connection, topic: str) -> dict[int, list[Any]]:
    """Return all records of a topic by partition, in order of their offsets."""
    reader: AIOKafkaConsumer = make_reader(connection)
    await reader.start()
    try:
        tps = [TopicPartition(topic, at) for at in range(await captures_partitions(connection))]
        reader.assign(tps)
        await reader.seek_to_beginning(*tps)
        ends = await reader.end_offsets(tps)
        records: dict[int, list[Any]] = {tp.partition: [] for tp in tps}
        while any([await reader.position(tp) < ends[tp] for tp in tps]):
            for tp, found in (await reader.getmany(timeout_ms=200)).items():
                records[tp.partition] += found
        return records
    finally:
        await reader.stop()


async def expected_of(connection: Connection) -> Expected:
    """Run the model over the log."""
    expected = Expected()
    for records in (await read_topic(connection, topics.CAPTURES)).values():
        for record in records:
            decoded = captures_codec.decode(record.value)
            for index, frame in enumerate(decoded.captures):
                captured = decode_captured(frame)
                place = decoded.generation, record.offset, index
                stored = expected.model.capture(captured, place)
                expected.frames[captured.external_id].append(Frame(captured, stored))
    return expected


async def check(stack: Stack, journal: Journal, expected: Expected) -> list[str]:
    """Return every deviation: of the rows, the states, the analysis topic, the answers."""
    await asyncio.to_thread(_drain, stack, expected.messages)
    return [
        *await asyncio.to_thread(check_rows, stack, expected.model),
        *await asyncio.to_thread(check_states, stack, expected.model),
        *await check_analysis(stack.connection, expected.model),
        *check_answers(journal, expected),
        *journal.wrong,
    ]


def _drain(stack: Stack, messages: int) -> None:
    """Return when that many rows are there, or no more come."""
    query = "SELECT count() AS rows FROM openbat.messages"
    rows, since = stack.sql(query), time.monotonic()
    while rows != [{"rows": messages}] and time.monotonic() - since < STILL_SECONDS:
        time.sleep(0.1)
        if (found := stack.sql(query)) != rows:
            rows, since = found, time.monotonic()


def check_rows(stack: Stack, model: Model) -> list[str]:
    """Compare the rows with the model: each once, in order, with what was sent."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in stack.sql(
        "SELECT chatbot_id, external_conversation_id, message_id, role, content, "
        "toUnixTimestamp64Micro(sent_at) AS sent, toUnixTimestamp64Micro(received_at) AS received "
        "FROM openbat.messages ORDER BY conversation_id, position"
    ):
        rows[row["chatbot_id"], row["external_conversation_id"]].append(row)
    found = {
        name: [(r["message_id"], r["role"], r["content"], r["sent"], r["received"]) for r in of_one]
        for name, of_one in rows.items()
    }
    wanted = {
        name: [(m.id, m.role, m.content, m.sent_at, m.received_at) for m in conversation.messages]
        for name, conversation in named(model).items()
        if conversation.messages
    }
    return differences("rows", wanted, found)


def check_states(stack: Stack, model: Model) -> list[str]:
    """Compare the conversations with the model."""
    found = {
        (row["chatbot_id"], row["external_conversation_id"]): (
            row["message_count"], row["first"], row["last"], row["session_device"],
        )
        for row in stack.sql(
            "SELECT chatbot_id, external_conversation_id, message_count, session_device, "
            "toUnixTimestamp64Micro(first_message_at) AS first, "
            "toUnixTimestamp64Micro(last_message_at) AS last FROM openbat.conversations"
        )
    }  # fmt: skip
    wanted = {
        name: (
            len(conversation.messages),
            min(message.sent_at for message in conversation.messages),
            max(message.sent_at for message in conversation.messages),
            conversation.fields.get("session", {}).get("device"),
        )
        for name, conversation in named(model).items()
    }
    return differences("state", wanted, found)


async def check_analysis(connection: Connection, model: Model) -> list[str]:
    """Every new message is in `analysis`; a replay may have put it there again."""
    found: set[tuple[str, str]] = set()
    for records in (await read_topic(connection, topics.ANALYSIS)).values():
        for record in records:
            for item in analysis_codec.decode(record.value):
                conversation = str(UUID(bytes=item.conversation_id))
                found |= {(conversation, m.id) for m in decode_new_messages(item.messages)}
    wanted = {
        (conversation_id_of(*name), message.id)
        for name, conversation in model.conversations.items()
        for message in conversation.messages
    }
    return [f"analysis: {len(wanted - found)} missing, {len(found - wanted)} of nobody"] * (
        found != wanted
    )


def check_answers(journal: Journal, expected: Expected) -> list[str]:
    """Compare what clients were told with the model.

    An answer's record is one that a gateway took while the client waited for it. Where attempts of
    one capture overlapped, as with a gateway that was paused, several may be: then the answer must
    be that of one of them.
    """
    deviations = []
    for posted in journal.posted:
        frames = [
            frame
            for frame in expected.frames.get(posted.external_id, [])
            if _same(posted, frame.captured)
        ]
        name = f"{posted.external_id}, {posted.mode}"
        if len(frames) > posted.attempts:
            deviations.append(f"{name}: {len(frames)} records of {posted.attempts} attempts")
        if sum(frame.stored for frame in frames) > len(posted.messages):
            deviations.append(f"{name}: counted twice")
        for answer in posted.answers:
            mine = [
                frame.stored
                for frame in frames
                if answer.asked_at <= frame.captured.received_at <= answer.answered_at
            ]
            told = answer.body["messagesStored"]
            if not mine:
                deviations.append(f"{name}: answered with 200, and lost")
            elif answer.exact and told not in mine:
                deviations.append(f"{name}: told {told}, stored {mine}")
            elif not answer.exact and told != len(posted.messages):
                deviations.append(f"{name}: told {told} provisionally of {len(posted.messages)}")
            if answer.body["analysisQueued"] != (told > 0):
                deviations.append(f"{name}: told {told}, queued {answer.body['analysisQueued']}")
    sent = {posted.external_id for posted in journal.posted}
    deviations += [f"{name}: never sent" for name in expected.frames.keys() - sent]
    return deviations


def differences(what: str, wanted: dict[Any, Any], found: dict[Any, Any]) -> list[str]:
    names = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    return [
        f"{what} of {name}: expected {wanted.get(name)!r:.300}, found {found.get(name)!r:.300}"
        for name in names[:MOST_SHOWN]
    ] + [f"{what}: {len(names)} conversations differ"] * (len(names) > MOST_SHOWN)


def named(model: Model) -> dict[tuple[str, str], ModelConversation]:
    return {
        (str(UUID(bytes=chatbot_id)), external_id): conversation
        for (chatbot_id, external_id), conversation in model.conversations.items()
    }


def conversation_id_of(chatbot_id: bytes, external_id: str) -> str:
    return str(uuid5(UUID(bytes=chatbot_id), external_id))


def answers_by_kind(journal: Journal) -> Counter[str]:
    return Counter(
        "exact" if answer.exact else "provisional"
        for posted in journal.posted
        for answer in posted.answers
    )


def _same(posted: Posted, captured: Captured) -> bool:
    """Whether a record's capture is one of these attempts."""
    if captured.fields["session"]["device"] != posted.turn:
        return False
    for sent, taken in zip(posted.messages, captured.messages, strict=True):
        if sent["role"] != taken.role or sent["content"] != taken.content:
            return False
        if posted.mode == "ids" and sent["id"] != taken.id:
            return False
    return True
