"""A chatbot's settings as the admin API has them, and what each may be. Pure.

The command line spells settings in another way, and keeps to the same rules.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Self

from limits import parse
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict, replace

from gateway.custom_fields import CustomFieldChanges, CustomFieldTypes
from gateway.errors import bad_request
from schemas.analysis import KINDS, MAX_LABEL_CHARACTERS, MAX_VOCABULARY, NO_INTENT
from schemas.chatbots import (
    MAX_RATE_CHARACTERS,
    MAX_REMEMBER_DAYS,
    MIN_REMEMBER_DAYS,
    Chatbot,
    ChatbotSettings,
    Label,
)

MAX_AMOUNT = 10**15
"""What a day's budget stays under, in tokens or in money."""

Rate = Annotated[
    str,
    Meta(
        max_length=MAX_RATE_CHARACTERS,
        description="`off`, or such as `600/minute`; null for the gateway's default.",
    ),
]
Days = Annotated[
    int,
    Meta(
        ge=MIN_REMEMBER_DAYS,
        le=MAX_REMEMBER_DAYS,
        description="How long message ids are remembered; null for ever.",
    ),
]
Words = Annotated[
    tuple[Label, ...], Meta(max_length=MAX_VOCABULARY, description="Empty for the default ones.")
]
Tokens = Annotated[
    int, Meta(ge=0, lt=MAX_AMOUNT, description="Of a language model, a day; null for no bound.")
]
Cost = Annotated[
    float, Meta(ge=0, lt=MAX_AMOUNT, description="Of a language model, a day; null for no bound.")
]


class AnalysisView(Struct):
    """What is analysed."""

    sentiment: bool
    intent: bool
    topics: bool
    flags: bool
    behaviour: bool
    resolution: bool


class SettingsView(Struct):
    """All settings of a chatbot."""

    rate_limit: Rate | None
    remember_days: Days | None
    analysis: AnalysisView
    intents: Words
    flags: Words
    tokens_per_day: Tokens | None
    cost_per_day: Cost | None
    custom_fields: CustomFieldTypes

    @classmethod
    def of(cls, chatbot: Chatbot) -> Self:
        settings = chatbot.settings
        return cls(
            rate_limit=settings.rate_limit,
            remember_days=settings.remember_days or None,
            analysis=AnalysisView(**{kind: kind in settings.analyses for kind in KINDS}),
            intents=settings.intents,
            flags=settings.flags,
            tokens_per_day=settings.tokens_per_day,
            cost_per_day=settings.cost_per_day,
            custom_fields=chatbot.schema,
        )


class AnalysisPatch(Struct, forbid_unknown_fields=True):
    """What is to be analysed from now on; null is on again."""

    sentiment: bool | UnsetType | None = UNSET
    intent: bool | UnsetType | None = UNSET
    topics: bool | UnsetType | None = UNSET
    flags: bool | UnsetType | None = UNSET
    behaviour: bool | UnsetType | None = UNSET
    resolution: bool | UnsetType | None = UNSET


class SettingsPatch(Struct, forbid_unknown_fields=True):
    """Settings to change, merged as RFC 7396 does it.

    One that is not named stays, null gives it its default again, a list replaces the list.
    """

    rate_limit: Rate | UnsetType | None = UNSET
    remember_days: Days | UnsetType | None = UNSET
    analysis: AnalysisPatch | UnsetType | None = UNSET
    intents: Words | UnsetType | None = UNSET
    flags: Words | UnsetType | None = UNSET
    tokens_per_day: Tokens | UnsetType | None = UNSET
    cost_per_day: Cost | UnsetType | None = UNSET
    custom_fields: CustomFieldChanges | UnsetType | None = UNSET


def merged(settings: ChatbotSettings, patch: SettingsPatch) -> ChatbotSettings:
    """Return the settings after a patch; its custom fields are left to `merged_fields`.

    Raises:
        RefusedError: 400, with the path of the setting that can't be; whatever the settings are.

    """
    changes: dict[str, Any] = {name: value for name, value in asdict(patch).items()
                               if name not in {"analysis", "custom_fields"}
                               and value is not UNSET}  # fmt: skip
    if changes.get("rate_limit") is not None and not is_rate(changes["rate_limit"]):
        raise bad_request(
            "invalid_setting",
            "Expected `off`, null, or a rate such as `600/minute`",
            "$.settings.rate_limit",
        )
    for name in {"intents", "flags"} & changes.keys():
        changes[name] = words_of(changes[name] or ())
        if changes[name] is None:
            raise bad_request(
                "invalid_setting",
                f"Expected names of 1 to {MAX_LABEL_CHARACTERS} printable characters, none with a "
                f"comma, none called {NO_INTENT}",
                f"$.settings.{name}",
            )
    if "remember_days" in changes:
        changes["remember_days"] = changes["remember_days"] or 0
    return replace(_with_analysis(settings, patch.analysis), **changes)


def _with_analysis(
    settings: ChatbotSettings, patch: AnalysisPatch | UnsetType | None
) -> ChatbotSettings:
    if patch is UNSET:
        return settings
    if patch is None:
        return with_kinds(settings, set(KINDS), on=True)
    given = {kind: value for kind, value in asdict(patch).items() if value is not UNSET}
    off = {kind for kind, value in given.items() if value is False}
    return with_kinds(with_kinds(settings, given.keys() - off, on=True), off, on=False)


def with_kinds(settings: ChatbotSettings, kinds: AbstractSet[str], *, on: bool) -> ChatbotSettings:
    """Return the settings with kinds of analysis switched on, or off."""
    wanted = settings.analyses | kinds if on else settings.analyses - kinds
    off = tuple(kind for kind in KINDS if kind not in wanted)
    # All off is said in one word, which earlier releases know too.
    return replace(settings, analysis=bool(wanted), analysis_off=off if wanted else ())


def is_rate(value: str) -> bool:
    """Whether a rate limit may be so: `off`, or in the notation of the `limits` library."""
    if value == "off":
        return True
    try:
        return len(value) <= MAX_RATE_CHARACTERS and parse(value).amount > 0
    except ValueError:
        return False


def words_of(words: Iterable[str]) -> tuple[str, ...] | None:
    """Return a vocabulary without spaces around its words and repeats; None where it can't be."""
    found = tuple(dict.fromkeys(word.strip() for word in words))
    usable = all(
        word.isprintable() and "," not in word and 0 < len(word) <= MAX_LABEL_CHARACTERS
        for word in found
    )
    return found if usable and len(found) <= MAX_VOCABULARY and NO_INTENT not in found else None
