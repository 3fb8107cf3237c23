"""Makes and changes chatbots in the registry."""

import hashlib
import secrets
import uuid
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TypeVar

from limits import parse
from msgspec.structs import replace

from gateway.registry import Registry
from openbat.connection import Connection
from openbat.kafka import Entries, edit_registry
from schemas.analysis import KINDS, MAX_LABEL_CHARACTERS, MAX_VOCABULARY, NO_INTENT
from schemas.chatbots import (
    KEY_PREFIX_CHARACTERS,
    MAX_RATE_CHARACTERS,
    MAX_REMEMBER_DAYS,
    MIN_REMEMBER_DAYS,
    Chatbot,
    ChatbotSettings,
    FieldType,
    chatbot_codec,
)

MAX_CHATBOTS = 100_000
MAX_SCHEMA_FIELDS, MAX_FIELD_NAME = 1_000, 255
FOREVER = "forever"
UNLIMITED = "unlimited"
MAX_AMOUNT = 10**15
N = TypeVar("N", int, float)
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
        settings = _with_setting(settings, name, value)
    return replace(chatbot, settings=settings)


def _with_setting(settings: ChatbotSettings, name: str, value: str) -> ChatbotSettings:
    what, dot, kind = name.partition(".")
    kinds = {kind} if dot else set(KINDS)
    if what == "analysis" and kinds <= set(KINDS) and value in {"on", "off"}:
        return _with_analysis(settings, kinds, on=value == "on")
    if name == "rate-limit":
        return replace(settings, rate_limit=_rate_limit(value))
    if name == "remember-ids":
        return replace(settings, remember_days=_remember_days(value))
    if name == "intents":
        return replace(settings, intents=_vocabulary(name, value))
    if name == "flags":
        return replace(settings, flags=_vocabulary(name, value))
    if name == "tokens-per-day":
        return replace(settings, tokens_per_day=_amount(name, value, int))
    if name == "cost-per-day":
        return replace(settings, cost_per_day=_amount(name, value, float))
    raise ChatbotError(
        f"{name}={value}: expected rate-limit=600/minute, rate-limit=off, rate-limit=default, "
        "remember-ids=30, remember-ids=forever, analysis=on, analysis=off, "
        f"analysis.KIND=on or analysis.KIND=off with a kind of {', '.join(KINDS)}, intents=A,B or "
        "intents=default, flags=A,B or flags=default, tokens-per-day=100000, cost-per-day=2.5, or "
        "either of them =unlimited"
    )


def _with_analysis(
    settings: ChatbotSettings, kinds: AbstractSet[str], *, on: bool
) -> ChatbotSettings:
    wanted = settings.analyses | kinds if on else settings.analyses - kinds
    off = tuple(kind for kind in KINDS if kind not in wanted)
    # All off is said in one word, which earlier releases know too.
    return replace(settings, analysis=bool(wanted), analysis_off=off if wanted else ())


def analysis_rows(settings: ChatbotSettings) -> dict[str, str]:
    """Return what `openbat chatbots show` says of a chatbot's analysis."""
    on = [kind for kind in KINDS if kind in settings.analyses]
    budgets = {"tokens-per-day": settings.tokens_per_day, "cost-per-day": settings.cost_per_day}
    return {
        "analysis": " ".join(on) if on else "off",
        "intents": ",".join(settings.intents) or "(the default ones)",
        "flags": ",".join(settings.flags) or "(the default ones)",
        **{name: UNLIMITED if most is None else f"{most}" for name, most in budgets.items()},
    }


def _vocabulary(name: str, value: str) -> tuple[str, ...]:
    if value == "default":
        return ()
    words = tuple(dict.fromkeys(word.strip() for word in value.split(",")))
    usable = all(word.isprintable() and 0 < len(word) <= MAX_LABEL_CHARACTERS for word in words)
    if not usable or len(words) > MAX_VOCABULARY or NO_INTENT in words:
        raise ChatbotError(
            f"{name}={value}: expected default, or up to {MAX_VOCABULARY} names with commas "
            f"between, each of 1 to {MAX_LABEL_CHARACTERS} printable characters and none called "
            f"{NO_INTENT}"
        )
    return words


def _amount(name: str, value: str, kind: Callable[[str], N]) -> N | None:
    if value == UNLIMITED:
        return None
    try:
        amount = kind(value)
    except ValueError:
        amount = None
    if amount is None or not 0 <= amount < MAX_AMOUNT:
        raise ChatbotError(f"{name}={value}: expected {UNLIMITED}, or a number from 0 on")
    return amount


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
