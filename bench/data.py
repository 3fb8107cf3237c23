"""What is posted: real conversations turn by turn, as bodies, as frames and as records."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from uuid import UUID

import msgspec

from gateway.decode import captured_of, decode_capture
from schemas import topics
from schemas.chatbots import Chatbot
from schemas.records import CapturesRecord, captures_codec, encode
from tests.conversations import real_or_made_up

TURN = 2
"""Messages of a capture: a question and its answer."""
CONVERSATIONS = 2_000
RUN = "@RUN@"
"""Stands in a body for the name of the run: each run's conversations are its own."""
RECEIVED_AT = 1_750_000_000_000_000
REPLY_PARTITION = 31

Frame = tuple[bytes, bytes]
"""A conversation's id, and the encoded capture."""
Record = tuple[int, bytes]
"""A partition, and a `captures` record."""


def source() -> str:
    """Return what the conversations are."""
    return "real conversations" if os.environ.get("OPENBAT_TEST_CONVERSATIONS") else "made up"


@cache
def bodies() -> list[str]:
    """Return captures as JSON, turn by turn, the turns of many conversations mixed."""
    turns: list[tuple[int, int, str]] = []
    for number, conversation in enumerate(real_or_made_up(CONVERSATIONS)):
        messages = conversation["messages"]
        for at in range(0, len(messages), TURN):
            body = {
                **conversation,
                "conversationId": f"{RUN}-{number}",
                "messages": messages[at : at + TURN],
            }
            turns.append((at, number, msgspec.json.encode(body).decode()))
    return [body for _, _, body in sorted(turns)]


def messages_per_capture() -> float:
    found = bodies()
    return sum(len(msgspec.json.decode(body)["messages"]) for body in found) / len(found)


def chatbot() -> Chatbot:
    """Return a chatbot to encode captures for; workers look none up."""
    return Chatbot(
        id=str(UUID(int=1)),
        name="bench",
        key_sha256=b"",
        key_prefix="",
        created_at=datetime.now(UTC),
    )


def frames(run: str, count: int) -> list[Frame]:
    """Return captures as a gateway encodes them, in conversations of the run's own."""
    owner = chatbot()
    found: list[Frame] = []
    for number, body in zip(range(count), _endless(run), strict=False):
        capture = decode_capture(body.encode())
        captured, _ = captured_of(capture, owner, RECEIVED_AT + number, None)
        found.append((captured.conversation_id, encode(captured)))
    return found


def records(captures: Iterable[Frame], partitions: int, size: int) -> list[Record]:
    """Gather captures into records of so many, in order within their partition."""
    waiting: defaultdict[int, list[bytes]] = defaultdict(list)
    found: list[Record] = []
    for conversation_id, frame in captures:
        partition = topics.partition_of(conversation_id, partitions)
        batch = waiting[partition]
        batch.append(frame)
        if len(batch) == size:
            found.append((partition, _record(batch)))
            batch.clear()
    return found + [(at, _record(batch)) for at, batch in waiting.items() if batch]


def _record(batch: list[bytes]) -> bytes:
    return captures_codec.encode(CapturesRecord(1, REPLY_PARTITION, list(batch)))


def _endless(run: str) -> Iterator[str]:
    lap = 0
    while True:
        for body in bodies():
            yield body.replace(RUN, f"{run}.{lap}", 1)
        lap += 1
