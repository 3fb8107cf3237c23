"""The capture API's request and answers, as msgspec types.

The OpenAPI document is made from these types, so a rule written here is enforced and documented
at once. Member names are the wire's (camelCase), as clients send them. Types that msgspec does not
know by itself (Instant, Members, CustomFields) are decoded by the gateway, in its one pass over the
body, so that the first fault is the one that is named.
"""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

MAX_MESSAGES = 100
MAX_ID_CHARACTERS = 255
MAX_DEPTH = 32
"""How deep members that the types don't name may nest; the known ones don't nest."""

Role = Literal["user", "assistant", "system"]
Identifier = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARACTERS)]

type_names: dict[type, str] = {str: "string", bool: "boolean", int: "number", float: "number"}
"""The contract's names for what a custom field may hold."""


class Instant(int):
    """A time that was sent as RFC 3339, in microseconds since the Unix epoch, UTC."""


class Message(Struct, rename="camel"):
    """One message of a conversation."""

    role: Role
    content: str
    id: Annotated[
        Identifier | None,
        Meta(description="Deduplication key within this conversation of this chatbot."),
    ] = None
    sent_at: Annotated[
        Instant | None,
        Meta(
            description=(
                "RFC 3339; without an offset it is read as UTC. "
                "Years 1900 to 2299. Default: when the gateway received it."
            )
        ),
    ] = None


class User(Struct, rename="camel"):
    """Who talks to the chatbot. Unknown members are kept with the conversation."""

    id: str | None = None
    name: str | None = None
    email: str | None = None
    plan: str | None = None
    industry: str | None = None
    created_at: Annotated[
        str | None,
        Meta(
            description="ISO 8601, RFC 3339 as a rule; years 1900 to 2299.",
            extra_json_schema={"format": "date-time"},
        ),
    ] = None
    mrr: float | None = None


class Organization(Struct):
    """The user's organization. Unknown members are kept with the conversation."""

    id: str | None = None
    name: str | None = None
    plan: str | None = None
    industry: str | None = None
    mrr: float | None = None


class Session(Struct, rename="camel"):
    """Where the conversation takes place. Unknown members are kept with the conversation."""

    id: str | None = None
    page_url: str | None = None
    referrer: str | None = None
    device: str | None = None
    country: str | None = None


Shape = type[User | Organization | Session]


class Members(dict[str, Any]):
    """An object whose known members are of a shape, and whose unknown ones are kept as sent."""

    shape: ClassVar[Shape]


class UserMembers(Members):
    shape = User


class OrganizationMembers(Members):
    shape = Organization


class SessionMembers(Members):
    shape = Session


class CustomFields(dict[str, Any]):
    """Values are strings, numbers or booleans.

    Another one is left out with a warning, one that the chatbot's schema does not expect is kept
    with a warning.
    """


class Capture(Struct, rename="camel"):
    """A batch of messages of one conversation, and what is known about who takes part in it."""

    conversation_id: Annotated[Identifier, Meta(description="Groups messages across calls.")]
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    user: UserMembers | None = None
    organization: OrganizationMembers | None = None
    session: SessionMembers | None = None
    custom: CustomFields | None = None
    user_id: Annotated[
        str | None,
        Meta(
            description="Used as user.id where user.id is absent.",
            extra_json_schema={"deprecated": True},
        ),
    ] = None
    metadata: Annotated[
        CustomFields | None,
        Meta(
            description="Used as custom; where both name a field, custom wins.",
            extra_json_schema={"deprecated": True},
        ),
    ] = None


class CaptureAnswer(Struct, rename="camel"):
    """What a capture is answered with once it is durable."""

    ok: Literal[True]
    conversation_id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    messages_stored: Annotated[int, Meta(ge=0, description="New messages only.")]
    analysis_queued: bool
    warnings: list[str]


class Health(Struct):
    """What a gateway that is well answers."""

    ok: Literal[True]


class ErrorDetail(Struct, omit_defaults=True):
    """What was wrong and, where one applies, the path of the first fault in the body."""

    code: Annotated[str, Meta(pattern="^[a-z0-9_]+$")]
    message: str
    path: str | None = None


class ErrorAnswer(Struct):
    """The body of every answer that is not a success."""

    ok: Literal[False]
    error: ErrorDetail
