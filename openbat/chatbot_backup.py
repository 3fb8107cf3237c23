"""The registry as one JSON document, and back: chatbots with their hashed keys, no key itself."""

import uuid
from collections.abc import Iterable
from datetime import datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.registry import Registry
from openbat.chatbots import (
    MAX_CHATBOTS,
    ChatbotError,
    check_name,
    entry_of,
    without_first_capture,
)
from openbat.connection import Connection
from openbat.kafka import Entries, edit_registry
from schemas.chatbots import (
    DEMO,
    GENERATION_KEY,
    Chatbot,
    ChatbotSettings,
    Generation,
    generation_codec,
)
from schemas.positions import MAX_GENERATION

FORMAT = 1
SHA256_BYTES = 32
CHUNK_CHATBOTS = 1_000
"""Written in one transaction, so that none comes near its time-out."""


class Backup(Struct, frozen=True):
    """What a file holds: `key_sha256` is in base64, `generation` is that of captures."""

    format: int
    exported_at: datetime
    generation: int
    chatbots: list[Chatbot]


class Restored(Struct):
    """What a restore did, or could not do.

    Attributes:
        written: chatbots that were missing, or were overwritten.
        unchanged: that are there just so.
        refused: a sentence for each that was not written.

    """

    written: int = 0
    unchanged: int = 0
    refused: list[str] = msgspec.field(default_factory=list)

    def __str__(self) -> str:
        return f"written={self.written} unchanged={self.unchanged} refused={len(self.refused)}"


def backup_of(registry: Registry, now: datetime) -> Backup:
    """Return all that the registry holds.

    Raises:
        ChatbotError: this release can't read some of it.

    """
    if registry.unreadable:
        raise ChatbotError(
            f"{len(registry.unreadable)} chatbots can't be read by this release: take the one that "
            "wrote them"
        )
    return Backup(FORMAT, now, registry.generation, registry.chatbots())


def parse(content: bytes) -> Backup:
    """Return what a file holds.

    Raises:
        ChatbotError: it is no backup, or holds a chatbot that can't be one.

    """
    advice = "expected a file that `openbat chatbots export` wrote"
    try:
        backup = msgspec.json.decode(content, type=Backup)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ChatbotError(f"it can't be read ({error}): {advice}") from None
    if backup.format != FORMAT:
        raise ChatbotError(f"its format {backup.format} is not known here: {advice} of a release")
    if not 0 <= backup.generation <= MAX_GENERATION:
        raise ChatbotError(f"its generation {backup.generation} can't be: {advice}")
    for chatbot in backup.chatbots:
        _check(chatbot, advice)
    for what in ("id", "name", "key_sha256"):
        if len({getattr(each, what) for each in backup.chatbots}) < len(backup.chatbots):
            raise ChatbotError(f"two of its chatbots have the same {what}: {advice}")
    return backup


def _check(chatbot: Chatbot, advice: str) -> None:
    try:
        check_name(chatbot.name)
        known = str(uuid.UUID(chatbot.id)) == chatbot.id
    except ValueError:
        known = False
    except ChatbotError as error:
        raise ChatbotError(f"chatbot {chatbot.id}: {error}: {advice}") from None
    if not known or len(chatbot.key_sha256) != SHA256_BYTES:
        raise ChatbotError(f"chatbot {chatbot.name!r}: its id or key hash can't be: {advice}")


def changes(
    registry: Registry, chatbots: Iterable[Chatbot], overwrite: bool
) -> tuple[list[Chatbot], Restored]:
    """Return which chatbots are to be written into a registry, and what became of all.

    One that is there already otherwise is the newer one, as far as anybody knows: it is kept,
    unless `overwrite`. What another chatbot has, its name or its key, is never taken away, but for
    the name of a `demo` that is as a local stack made it: see `displaced`. That a chatbot has had
    its first capture is never undone.
    """
    names = {known.name: known for known in registry.chatbots()}
    wanted = []
    done = Restored()
    for chatbot in chatbots:
        there = registry.chatbot(uuid.UUID(chatbot.id).bytes)
        other = registry.chatbot_of(chatbot.key_sha256)
        named = names.get(chatbot.name, chatbot)
        if there and without_first_capture(there) == without_first_capture(chatbot):
            done.unchanged += 1
        elif uuid.UUID(chatbot.id).bytes in registry.unreadable and not overwrite:
            # It may have another key by now, because this one was lost.
            done.refused.append(
                f"{chatbot.name}: it can't be read, and is kept; --overwrite puts this one back"
            )
        elif named.id != chatbot.id and not (overwrite and _is_unused_demo(named)):
            done.refused.append(f"{chatbot.name}: another chatbot has this name{_advice(named)}")
        elif other is not None and other.id != chatbot.id:
            done.refused.append(f"{chatbot.name}: {other.name} has its key; rotate that one's")
        elif there is not None and not overwrite:
            done.refused.append(
                f"{chatbot.name}: it was changed since, and is kept; --overwrite puts it back"
            )
        else:
            first = there and there.first_capture_at
            wanted.append(replace(chatbot, first_capture_at=first or chatbot.first_capture_at))
            names[chatbot.name] = chatbot
            done.written += 1
    if len(registry.chatbots()) + done.written > MAX_CHATBOTS:
        raise ChatbotError(f"there would be over {MAX_CHATBOTS} chatbots")
    return wanted, done


def _is_unused_demo(chatbot: Chatbot) -> bool:
    """Tell whether nothing is lost with a chatbot: a local stack made it, and that is all."""
    return (
        chatbot.name == DEMO
        and chatbot.shown_state == "pending"
        and not chatbot.schema
        and chatbot.settings == ChatbotSettings()
    )


def _advice(named: Chatbot) -> str:
    if _is_unused_demo(named):
        return ", and has had no capture; --overwrite replaces it"
    if named.name == DEMO:
        return " and keeps it; give this one another name in the file"
    return "; rename that one (docs/admin.md), or this one in the file"


def displaced(registry: Registry, wanted: Iterable[Chatbot]) -> list[bytes]:
    """Return the keys of entries that are to go, because wanted chatbots take their names."""
    names = {chatbot.name: chatbot.id for chatbot in wanted}
    return [
        uuid.UUID(known.id).bytes
        for known in registry.chatbots()
        if names.get(known.name, known.id) != known.id
    ]


def generation_after(registry: Registry, backup: Backup) -> int:
    """Return the generation of captures that a registry must have after a restore.

    A registry that knows none of the chatbots is a new one. The conversations may be old ones, with
    positions of the backup's generation: what is captured from now on must come after them. In a
    registry that goes on nothing is counted up, because two gateways would not learn it at once.

    Raises:
        ChatbotError: there is no further one.

    """
    known = any(registry.chatbot(uuid.UUID(bot.id).bytes) is not None for bot in backup.chatbots)
    newest = max(registry.generation, backup.generation)
    if known or not backup.chatbots:
        return newest
    if newest == MAX_GENERATION:
        raise ChatbotError(f"captures was made anew {MAX_GENERATION} times: no position is left")
    return newest + 1


async def restore(connection: Connection, backup: Backup, overwrite: bool) -> Restored:
    """Write what a registry lacks of a backup. May be interrupted, and run again.

    Raises:
        ChatbotError: see `generation_after` and `changes`; nothing is written.
        KafkaError, UnreachableError: the registry could not be written, or not all of it.

    """
    total = Restored()
    chunks = [
        backup.chatbots[start : start + CHUNK_CHATBOTS]
        for start in range(0, len(backup.chatbots), CHUNK_CHATBOTS)
    ]
    for chunk in chunks:
        done = Restored()

        def edit(registry: Registry, chunk: list[Chatbot] = chunk) -> Entries:
            nonlocal done
            wanted, done = changes(registry, chunk, overwrite)
            entries: Entries = [(key, None) for key in displaced(registry, wanted)]
            entries += [entry_of(chatbot) for chatbot in wanted]
            generation = generation_after(registry, backup)
            if entries and generation != registry.generation:
                encoded = generation_codec.encode(Generation(generation))
                entries.insert(0, (GENERATION_KEY, encoded))
            return entries

        await edit_registry(connection, edit)
        total.written += done.written
        total.unchanged += done.unchanged
        total.refused += done.refused
    return total
