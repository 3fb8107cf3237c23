"""The registry: a compacted topic of one partition that holds each chatbot's newest state.

Beside the chatbots it holds one more entry, the captures topic's generation, under a key that is
no UUID.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct, field

from schemas.analysis import KINDS, MAX_LABEL_CHARACTERS, MAX_VOCABULARY, MESSAGE_KINDS, Kind
from schemas.capture import Role
from schemas.codec import Codec
from schemas.positions import MAX_GENERATION

FieldType = Literal["string", "number", "boolean"]
FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)
State = Literal["active", "archived"]
ShownState = Literal["pending", "active", "archived"]
"""A chatbot is pending until its first capture; an archived one takes none."""
Label = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL_CHARACTERS)]

GENERATION_KEY = b"captures-generation"
KEY_PREFIX_CHARACTERS = 14
MIN_REMEMBER_DAYS, MAX_REMEMBER_DAYS = 8, 36_500
"""At least a day more than captures are kept, so that no replay spans a forgetting."""
MAX_RATE_CHARACTERS = 64
"""A rate's numbers must not get beyond what a double holds."""
MAX_CUSTOM_FIELDS, MAX_FIELD_NAME_CHARACTERS = 1_000, 255
DEMO = "demo"
"""The chatbot that a local stack makes on its first run."""


class ChatbotSettings(Struct, frozen=True, omit_defaults=True):
    """What can be set per chatbot.

    `rate_limit` is in the notation of the `limits` library (`600/minute`), `off`, or None for the
    gateway's default. `remember_days` says how long message ids are remembered after a
    conversation's last change, 0 for ever.

    `analysis` false switches all analysis off, `analysis_off` those kinds that it names.
    `intents` and `flags` are the chatbot's own vocabularies, empty for the default ones. What a
    paid analyzer may spend on it a day is None where nothing bounds it; the cost is in the
    currency of the prices that the operator set.
    """

    rate_limit: Annotated[str, Meta(max_length=MAX_RATE_CHARACTERS)] | None = None
    analysis: bool = True
    remember_days: Annotated[int, Meta(ge=0, le=MAX_REMEMBER_DAYS)] = 0
    analysis_off: tuple[str, ...] = ()
    intents: Annotated[tuple[Label, ...], Meta(max_length=MAX_VOCABULARY)] = ()
    flags: Annotated[tuple[Label, ...], Meta(max_length=MAX_VOCABULARY)] = ()
    tokens_per_day: Annotated[int, Meta(ge=0)] | None = None
    cost_per_day: Annotated[float, Meta(ge=0)] | None = None

    @property
    def analyses(self) -> frozenset[Kind]:
        """What is to be analysed."""
        return _kinds_without(self.analysis_off) if self.analysis else frozenset()

    @property
    def message_analyses(self) -> Mapping[Role, frozenset[Kind]]:
        """What is to be analysed of a message, by its role; nothing of one that is not there."""
        return _message_kinds_without(self.analysis_off) if self.analysis else {}

    @property
    def is_analysed(self) -> bool:
        return self.analysis and (not self.analysis_off or bool(self.analyses))


@cache
def _kinds_without(off: tuple[str, ...]) -> frozenset[Kind]:
    return frozenset(kind for kind in KINDS if kind not in off)


@cache
def _message_kinds_without(off: tuple[str, ...]) -> Mapping[Role, frozenset[Kind]]:
    left = {role: kinds & _kinds_without(off) for role, kinds in MESSAGE_KINDS.items()}
    return {role: kinds for role, kinds in left.items() if kinds}


class Chatbot(Struct, frozen=True):
    """One chatbot. Keys are never stored: only their SHA-256, and what to recognise them by.

    `first_capture_at`, in UTC, is when a gateway took the first capture that was noted; gateways
    write it within seconds. 0.1.0 passes over it. Where that release changes the chatbot the time
    is lost, and the next capture that a gateway of a later one takes is noted in its place.
    """

    id: str
    name: str
    key_sha256: bytes
    key_prefix: str
    created_at: datetime
    state: State = "active"
    schema: dict[str, FieldType] = field(default_factory=dict)
    settings: ChatbotSettings = field(default_factory=ChatbotSettings)
    first_capture_at: datetime | None = None

    @property
    def shown_state(self) -> ShownState:
        """The state as people see it; only `state` decides what is refused."""
        if self.state == "archived":
            return "archived"
        return "pending" if self.first_capture_at is None else "active"


class Generation(Struct, frozen=True):
    """How often the captures topic was made: see schemas.positions."""

    generation: Annotated[int, Meta(ge=0, le=MAX_GENERATION)]


chatbot_codec = Codec(Chatbot, version=1)
generation_codec = Codec(Generation, version=1)
