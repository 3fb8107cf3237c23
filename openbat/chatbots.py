"""Makes and changes chatbots in the registry."""

import hashlib
import secrets
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from limits import parse
from msgspec.structs import replace

from gateway.registry import Registry
from openbat.connection import Connection
from openbat.kafka import Entries, edit_registry
from schemas.chatbots import (
    KEY_PREFIX_CHARACTERS,
    MAX_RATE_CHARACTERS,
    MAX_REMEMBER_DAYS,
    MIN_REMEMBER_DAYS,
    Chatbot,
    FieldType,
    chatbot_codec,
)

MAX_CHATBOTS = 100_000
MAX_SCHEMA_FIELDS, MAX_FIELD_NAME = 1_000, 255
FOREVER = "forever"
FIELD_TYPES: tuple[FieldType, ...] = ("string", "number", "boolean")


class ChatbotError(Exception):
    """Raised when a chatbot can't be changed as asked; says why."""


def new_key() -> str:
    return f"ob_live_{secrets.token_hex(16)}"


def with_key(chatbot: Chatbot, key: str) -> Chatbot:
    """Return the chatbot with another key. The key itself is stored nowhere."""
    return replace(
        chatbot,
        key_sha256=hashlib.sha256(key.encode()).digest(),
        key_prefix=key[:KEY_PREFIX_CHARACTERS],
    )


def find(registry: Registry, name: str) -> Chatbot:
    """Return a chatbot by its name or id. Raises ChatbotError where there is none."""
    for chatbot in registry.chatbots():
        if name in {chatbot.name, chatbot.id}:
            return chatbot
    raise ChatbotError(f"there is no chatbot {name!r}: see `openbat chatbots list`")


async def create(connection: Connection, name: str, key: str) -> Chatbot:
    """Make a chatbot. Raises ChatbotError where the name is taken, or can't be one."""
    if not name.strip() or name != name.strip() or len(name) > 255 or not name.isprintable():
        raise ChatbotError("a name is 1 to 255 printable characters, without spaces around it")
    chatbot = with_key(
        Chatbot(
            id=str(uuid.uuid4()), name=name, key_sha256=b"", key_prefix="",
            created_at=datetime.now(UTC),
        ),
        key,
    )  # fmt: skip

    def change(registry: Registry) -> Entries:
        if any(known.name == name for known in registry.chatbots()):
            raise ChatbotError(f"there is a chatbot {name!r} already")
        if len(registry.chatbots()) >= MAX_CHATBOTS:
            raise ChatbotError(f"there are {MAX_CHATBOTS} chatbots: every gateway holds them all")
        return [_entry(chatbot)]

    await edit_registry(connection, change)
    return chatbot


async def update(
    connection: Connection, name: str, change: Callable[[Chatbot], Chatbot]
) -> Chatbot:
    """Change a chatbot; return it as it is then. Raises ChatbotError where there is none."""
    changed: list[Chatbot] = []

    def edit(registry: Registry) -> Entries:
        changed[:] = [change(find(registry, name))]
        return [_entry(changed[0])]

    await edit_registry(connection, edit)
    return changed[0]


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
    if len(schema) > MAX_SCHEMA_FIELDS or any(len(name) > MAX_FIELD_NAME for name in schema):
        raise ChatbotError(
            f"a schema takes {MAX_SCHEMA_FIELDS} fields, of names of {MAX_FIELD_NAME} characters"
        )
    return replace(chatbot, schema=schema)


def with_settings(chatbot: Chatbot, values: Mapping[str, str]) -> Chatbot:
    """Return the chatbot with these settings. Raises ChatbotError for one that can't be."""
    settings = chatbot.settings
    for name, value in values.items():
        if name == "rate-limit":
            settings = replace(settings, rate_limit=_rate_limit(value))
        elif name == "analysis" and value in {"on", "off"}:
            settings = replace(settings, analysis=value == "on")
        elif name == "remember-ids":
            settings = replace(settings, remember_days=_remember_days(value))
        else:
            raise ChatbotError(
                f"{name}={value}: expected rate-limit=600/minute, rate-limit=off, "
                "rate-limit=default, analysis=on, analysis=off, remember-ids=30 or "
                "remember-ids=forever"
            )
    return replace(chatbot, settings=settings)


def _rate_limit(value: str) -> str | None:
    if value == "default":
        return None
    if value != "off":
        try:
            usable = parse(value).amount > 0 and len(value) <= MAX_RATE_CHARACTERS
        except ValueError:
            usable = False
        if not usable:
            raise ChatbotError(
                f"rate-limit={value}: expected off, default, or a rate such as 600/minute"
            )
    return value


def _remember_days(value: str) -> int:
    if value == FOREVER:
        return 0
    if value.isdecimal() and MIN_REMEMBER_DAYS <= int(value) <= MAX_REMEMBER_DAYS:
        return int(value)
    raise ChatbotError(
        f"remember-ids={value}: expected {FOREVER}, or a number of days from "
        f"{MIN_REMEMBER_DAYS} to {MAX_REMEMBER_DAYS}"
    )


def _entry(chatbot: Chatbot) -> tuple[bytes, bytes]:
    return uuid.UUID(chatbot.id).bytes, chatbot_codec.encode(chatbot)
