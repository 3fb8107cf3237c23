"""What the admin API takes and answers; the OpenAPI document is made from these types."""

from datetime import datetime
from typing import Annotated, Literal, Self

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.chatbot_settings import SettingsPatch, SettingsView
from schemas.chatbots import KEY_PREFIX_CHARACTERS, Chatbot, ShownState

MAX_NAME_CHARACTERS = 255
MAX_PAGE = 100
"""Chatbots of one page."""

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="Printable, without spaces around it, and no other chatbot's.",
    ),
]
Key = Annotated[str, Meta(pattern="^ob_live_[0-9a-f]{32}$", description="It is shown this once.")]


class NewChatbot(Struct, forbid_unknown_fields=True):
    """A chatbot to be made."""

    name: Name


class ChatbotPatch(Struct, forbid_unknown_fields=True):
    """What is to change of a chatbot; what is not named stays."""

    name: Name | UnsetType = UNSET
    settings: SettingsPatch | UnsetType = UNSET


class ChatbotView(Struct):
    """A chatbot; it is pending until its first capture, and an archived one takes none."""

    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    name: str
    api_key_prefix: Annotated[
        str, Meta(description=f"The key's first {KEY_PREFIX_CHARACTERS} characters.")
    ]
    settings: SettingsView
    created_at: Annotated[datetime, Meta(tz=True)]
    state: ShownState

    @classmethod
    def of(cls, chatbot: Chatbot) -> Self:
        return cls(
            id=chatbot.id,
            name=chatbot.name,
            api_key_prefix=chatbot.key_prefix,
            settings=SettingsView.of(chatbot),
            created_at=chatbot.created_at,
            state=chatbot.shown_state,
        )


class ChatbotAnswer(Struct):
    """One chatbot."""

    ok: Literal[True]
    chatbot: ChatbotView


class ChatbotKeyAnswer(Struct, rename={"api_key": "apiKey"}):
    """One chatbot, and its new key."""

    ok: Literal[True]
    chatbot: ChatbotView
    api_key: Key


class ChatbotsAnswer(Struct):
    """A page of the chatbots, by name."""

    ok: Literal[True]
    chatbots: list[ChatbotView]
    page: Annotated[int, Meta(ge=1)]
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)]
    total: Annotated[int, Meta(ge=0, description="Chatbots of all pages.")]
