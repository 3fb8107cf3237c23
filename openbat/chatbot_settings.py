"""A chatbot's settings as a person writes and reads them: `rate-limit=600/minute`. Pure."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from gateway.chatbot_settings import MAX_AMOUNT, is_rate, with_kinds, words_of
from openbat.chatbots import ChatbotError
from schemas.analysis import KINDS, MAX_LABEL_CHARACTERS, MAX_VOCABULARY, NO_INTENT
from schemas.chatbots import MAX_REMEMBER_DAYS, MIN_REMEMBER_DAYS, Chatbot, ChatbotSettings

FOREVER = "forever"
UNLIMITED = "unlimited"
N = TypeVar("N", int, float)


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
        return with_kinds(settings, kinds, on=value == "on")
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
    words = words_of(value.split(","))
    if words is None:
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
    if not is_rate(value):
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
