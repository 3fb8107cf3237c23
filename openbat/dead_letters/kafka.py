"""Replays and drops dead letters."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from msgspec import Struct

from openbat.connection import Connection
from openbat.dead_letters.listed import DeadLettersError, Listed
from openbat.dead_letters.reading import values
from openbat.dead_letters.replay import RefusedError, replay_of
from openbat.kafka import read_registry, start_producer
from schemas import sizes, topics

CHUNK_LETTERS = 100
CHUNK_BYTES = 16 * sizes.MIB


class Totals(Struct):
    """What became of letters that were to be replayed."""

    replayed: int = 0
    refused: int = 0

    def __str__(self) -> str:
        return f"replayed={self.replayed} refused={self.refused}"


async def drop(
    connection: Connection, letters: Sequence[Listed], done: Callable[[int], None]
) -> None:
    """Drop letters for good.

    Args:
        connection: to Kafka.
        letters: to drop.
        done: called with how many more are dropped.

    Raises:
        DeadLettersError: Kafka stopped answering.

    """
    async with _Writer(connection) as writer:
        for start in range(0, len(letters), CHUNK_LETTERS):
            chunk = letters[start : start + CHUNK_LETTERS]
            await writer.drop(chunk)
            done(len(chunk))


async def replay(
    connection: Connection, letters: Sequence[Listed], done: Callable[[Listed, str], None]
) -> Totals:
    """Process letters again, exactly once however often this is interrupted and repeated.

    A letter is dropped only when its replay is acknowledged. One that is replayed again, because
    the drop did not come to pass, changes nothing: what it holds is known by then.

    Args:
        connection: to Kafka.
        letters: to replay.
        done: called for each, with what a person is to know about it or an empty string.

    Raises:
        DeadLettersError: Kafka stopped answering.

    """
    totals = Totals()
    if not letters:
        return totals
    generation = (await read_registry(connection)).generation
    missing = {listed.id: listed for listed in letters}
    async with _Writer(connection) as writer:
        async for chunk in _chunks(values(connection, letters)):
            replayed = []
            for listed, value in chunk:
                del missing[listed.id]
                try:
                    said = await writer.replay(listed, value, generation)
                except RefusedError as error:
                    totals.refused += 1
                    done(listed, f"{error}; it stays")
                else:
                    replayed.append((listed, said))
            await writer.acknowledged()
            await writer.drop([listed for listed, _ in replayed])
            for listed, said in replayed:
                totals.replayed += 1
                done(listed, said)
    for listed in missing.values():
        totals.refused += 1
        done(listed, "it is gone since it was listed")
    return totals


async def _chunks(
    found: AsyncIterator[tuple[Listed, bytes]],
) -> AsyncIterator[list[tuple[Listed, bytes]]]:
    chunk: list[tuple[Listed, bytes]] = []
    async for listed, value in found:
        chunk.append((listed, value))
        if len(chunk) == CHUNK_LETTERS or sum(len(each) for _, each in chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Writer:
    """Sends replays and tombstones; what was sent is done when it is acknowledged."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sent: list[asyncio.Future[Any]] = []

    async def __aenter__(self) -> Self:
        self._producer: AIOKafkaProducer = await start_producer(self._connection, sizes.BATCH)
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        await self._producer.stop()
        if isinstance(error, KafkaError):
            raise DeadLettersError(
                f"Kafka stopped answering ({error!r}): what is not done is still listed, so run "
                "the command again"
            ) from error

    async def acknowledged(self) -> None:
        await asyncio.gather(*self._sent)
        self._sent.clear()

    async def replay(self, listed: Listed, value: bytes, generation: int) -> str:
        """Send a letter's replay; return what a person is to know. Raises RefusedError."""
        source = listed.letter.source
        again = replay_of(listed.letter, value, generation)
        await self._send(source.topic, again.value, source.partition)
        for letter, part in again.remaining:
            await self._send(
                topics.DEAD_LETTERS, part, listed.partition, letter.key, letter.headers()
            )
        if not again.remaining:
            return ""
        return (
            f"{again.parts} of its parts are replayed; these can't be decoded and stay: "
            + ", ".join(str(letter.source) for letter, _ in again.remaining)
        )

    async def drop(self, letters: Iterable[Listed]) -> None:
        for listed in letters:
            await self._send(topics.DEAD_LETTERS, None, listed.partition, listed.key)
        await self.acknowledged()

    async def _send(
        self,
        topic: str,
        value: bytes | None,
        partition: int,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        self._sent.append(
            await self._producer.send(
                topic, value, key=key, partition=partition, headers=headers or []
            )
        )
