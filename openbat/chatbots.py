"""Makes and changes chatbots in the registry."""

import hashlib
import secrets
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from gateway.registry import Registry
from openbat.connection import Connection
from openbat.kafka import Entries, edit_registry
from schemas.chatbots import (
    DEMO,
    FIELD_TYPES,
    KEY_PREFIX_CHARACTERS,
    MAX_CUSTOM_FIELDS,
    MAX_FIELD_NAME_CHARACTERS,
    Chatbot,
    chatbot_codec,
)

MAX_CHATBOTS = 100_000


class ChatbotError(Exception):
    """Raised when a chatbot can't be changed as asked; says why."""


class UnknownChatbotError(ChatbotError):
    """Raised when there is no such chatbot."""


class NameTakenError(ChatbotError):
    """Raised when another chatbot has the name already."""


class WrongNameError(ChatbotError):
    """Raised when no chatbot can have the name."""


class TooManyChatbotsError(ChatbotError):
    """Raised when the registry takes no more chatbots."""


def new_key() -> str:
    return f"ob_live_{secrets.token_hex(16)}"


def with_key(chatbot: Chatbot, key: str) -> Chatbot:
    """Return the chatbot with another key. The key itself is stored nowhere."""
    return replace(
        chatbot,
        key_sha256=hashlib.sha256(key.encode()).digest(),
        key_prefix=key[:KEY_PREFIX_CHARACTERS],
    )


def archived(chatbot: Chatbot) -> Chatbot:
    """Return the chatbot as one that takes no more captures. Its data stays."""
    return replace(chatbot, state="archived")


def without_first_capture(chatbot: Chatbot) -> Chatbot:
    """Return the chatbot without what gateways note: the same as long as nobody changed it."""
    return replace(chatbot, first_capture_at=None)


def find(registry: Registry, which: str | uuid.UUID) -> Chatbot:
    """Return a chatbot by its name or id; by a UUID it is the id, whatever others are called.

    Raises:
        UnknownChatbotError: there is none.

    """
    if isinstance(which, uuid.UUID):
        found = registry.chatbot(which.bytes)
    else:
        found = next((bot for bot in registry.chatbots() if which in {bot.name, bot.id}), None)
    if found is None:
        raise UnknownChatbotError(
            f"there is no chatbot {str(which)!r}: see `openbat chatbots list`"
        )
    return found


async def create(connection: Connection, name: str, key: str) -> Chatbot:
    """Make a chatbot. Raises ChatbotError where the name is taken, or can't be one."""
    check_name(name)
    chatbot = with_key(
        Chatbot(
            id=str(uuid.uuid4()), name=name, key_sha256=b"", key_prefix="",
            created_at=datetime.now(UTC),
        ),
        key,
    )  # fmt: skip

    def change(registry: Registry) -> Entries:
        _check_free(registry, name)
        if len(registry.chatbots()) >= MAX_CHATBOTS:
            raise TooManyChatbotsError(
                f"there are {MAX_CHATBOTS} chatbots: every gateway holds them all"
            )
        return [entry_of(chatbot)]

    await edit_registry(connection, change)
    return chatbot


async def update(
    connection: Connection, which: str | uuid.UUID, change: Callable[[Chatbot], Chatbot]
) -> Chatbot:
    """Change a chatbot; return it as it is then.

    Args:
        connection: to Kafka.
        which: it is, as `find` takes it.
        change: returns it as it is to be; may be called again.

    Raises:
        ChatbotError: there is none, or its new name is taken, or can't be one.

    """
    changed: list[Chatbot] = []

    def edit(registry: Registry) -> Entries:
        before = find(registry, which)
        after = change(before)
        if after.name != before.name:
            if before.name == DEMO:
                raise WrongNameError(f"{DEMO} keeps its name: a local stack finds it by that")
            check_name(after.name)
            _check_free(registry, after.name)
        changed[:] = [after]
        return [entry_of(after)]

    await edit_registry(connection, edit)
    return changed[0]


def check_name(name: str) -> None:
    """Raise WrongNameError where no chatbot can be called so."""
    if not name.strip() or name != name.strip() or len(name) > 255 or not name.isprintable():
        raise WrongNameError("a name is 1 to 255 printable characters, without spaces around it")


def _check_free(registry: Registry, name: str) -> None:
    if any(known.name == name for known in registry.chatbots()):
        raise NameTakenError(f"there is a chatbot {name!r} already")


def with_schema(chatbot: Chatbot, types: Mapping[str, str]) -> Chatbot:
    """Return the chatbot with these custom fields added. Raises ChatbotError for a wrong type."""
    schema = dict(chatbot.schema)
    for name, wanted in types.items():
        matching = [known for known in FIELD_TYPES if known == wanted]
        if not name:
            raise ChatbotError(f"={wanted}: the field's name is missing, as in plan=string")
        if not matching:
            raise ChatbotError(f"{name}={wanted}: expected a type of {', '.join(FIELD_TYPES)}")
        schema[name] = matching[0]
    longest = max(map(len, schema), default=0)
    if len(schema) > MAX_CUSTOM_FIELDS or longest > MAX_FIELD_NAME_CHARACTERS:
        raise ChatbotError(
            f"a schema takes {MAX_CUSTOM_FIELDS} fields, of names of "
            f"{MAX_FIELD_NAME_CHARACTERS} characters"
        )
    return replace(chatbot, schema=schema)


def entry_of(chatbot: Chatbot) -> tuple[bytes, bytes]:
    """Return the registry's entry that holds a chatbot."""
    return uuid.UUID(chatbot.id).bytes, chatbot_codec.encode(chatbot)
