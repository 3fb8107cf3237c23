"""What the properties are tried with: made to collide, as clients that retry do."""

from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid5

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from schemas.capture import Role
from schemas.records import Captured, CapturedMessage
from tests.property.model import DAY

T = TypeVar("T")

CHATBOTS = tuple(bytes([number]) * 16 for number in (1, 2))
EXTERNAL_IDS = ("first", "second")
LONG = "an id that is longer than what is kept whole: "
MESSAGE_IDS = ("a", "b", "ü", "c" * 32, f"{LONG}1", f"{LONG}2")
ROLES: tuple[Role, ...] = ("user", "assistant", "system")
FIRST_TIME, LAST_TIME = 1, 40

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
fields = st.dictionaries(
    st.sampled_from(["user", "organization", "session", "custom"]),
    st.dictionaries(st.sampled_from(["id", "plan", "other"]), st.sampled_from([1, 2, "x"])),
    max_size=2,
)
times = st.integers(FIRST_TIME, LAST_TIME)


class Record(NamedTuple):
    """A record of captures as the worker reads it; None for what could not be decoded."""

    generation: int
    offset: int
    captures: list[Captured | None]


def conversation_id(chatbot_id: bytes, external_id: str) -> bytes:
    return uuid5(UUID(bytes=chatbot_id), external_id).bytes


@st.composite
def captures(draw: DrawFn) -> Captured:
    """Return a capture; its messages without an id of the client's are still without any."""
    chatbot_id = draw(st.sampled_from(CHATBOTS))
    external_id = draw(st.sampled_from(EXTERNAL_IDS))
    messages = draw(
        st.lists(
            st.tuples(st.sampled_from([*MESSAGE_IDS, ""]), st.sampled_from(ROLES), times),
            min_size=1,
            max_size=4,
        )
    )
    return Captured(
        chatbot_id,
        conversation_id(chatbot_id, external_id),
        external_id,
        draw(times),
        draw(st.booleans()),
        [
            CapturedMessage(message_id, role, f"{role} at {at}", at, bool(message_id))
            for message_id, role, at in messages
        ],
        draw(fields),
    )


@st.composite
def forgetting(draw: DrawFn) -> list[Record]:
    """Return records of weeks, of chatbots that forget ids or not; clocks differ by hours.

    Some have few settings and ids, so that more happens to the same ones.
    """
    made = draw(records(12) | crowded())
    days = draw(some(0, 8, 9))
    now = 1_000 * DAY
    for record in made:
        now += draw(st.integers(0, 120)) * DAY // 10
        for captured in record.captures:
            if captured is not None:
                captured.received_at = now - round(draw(st.sampled_from([0, 0.2])) * DAY)
                captured.remember_days = draw(st.sampled_from(days))
    return made


@st.composite
def crowded(draw: DrawFn) -> list[Record]:
    """Return records of one conversation, or two, and of few ids."""
    made = []
    names = draw(some(*EXTERNAL_IDS))
    for offset in range(12):
        name, message_id = draw(st.sampled_from(names)), draw(st.sampled_from("abc"))
        message = CapturedMessage(message_id, "user", "hi", offset, remembered=True)
        conversation = conversation_id(CHATBOTS[0], name)
        captured = Captured(CHATBOTS[0], conversation, name, offset, False, [message], {})
        made.append(Record(1, offset, [captured]))
    return made


def some(*values: T) -> st.SearchStrategy[list[T]]:
    """Return one of the values, or more."""
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


@st.composite
def records(draw: DrawFn, max_size: int = 7) -> list[Record]:
    """Return the records of one partition, in order; the topic may have been made anew between."""
    made = []
    generation, offset, fresh = 1, draw(st.integers(0, 2**40 - 100)), 0
    frames = st.lists(captures() | st.none(), max_size=4)
    for decoded in draw(st.lists(frames, min_size=1, max_size=max_size)):
        for captured in decoded:
            for message in captured.messages if captured else ():
                if not message.remembered:
                    fresh += 1
                    message.id = f"fresh-{fresh}"
        made.append(Record(generation, offset, decoded))
        offset += 1
        if draw(st.integers(0, 9)) == 9:
            generation, offset = generation + 1, 0
    return made
