"""What analysis says of messages and conversations: its kinds, and the words it may use."""

from typing import Literal, cast, get_args

from schemas.capture import Role

Kind = Literal["sentiment", "intent", "topics", "flags", "behaviour", "resolution"]
KINDS = cast("tuple[Kind, ...]", get_args(Kind))

MESSAGE_KINDS: dict[Role, frozenset[Kind]] = {
    "user": frozenset({"sentiment", "intent", "topics", "flags"}),
    "assistant": frozenset({"behaviour"}),
    "system": frozenset(),
}
"""What is said of a message, by who sent it."""
CONVERSATION_KINDS: frozenset[Kind] = frozenset({"resolution"})
"""What is said of a conversation, once it has been quiet."""

Sentiment = Literal["negative", "neutral", "positive"]
SENTIMENTS = cast("tuple[Sentiment, ...]", get_args(Sentiment))

Behaviour = Literal["helpful", "dodging", "over-apologizing", "repeating", "asking", "refusing"]
BEHAVIOURS = cast("tuple[Behaviour, ...]", get_args(Behaviour))
"""What an assistant's message does. `asking`: it asks back for what it needs to go on."""

Resolution = Literal["fully", "partially", "unresolved"]
RESOLUTIONS = cast("tuple[Resolution, ...]", get_args(Resolution))

DEFAULT_INTENTS = (
    "question", "search", "purchase", "booking", "cancellation", "account", "problem", "complaint",
    "feedback", "smalltalk",
)  # fmt: skip
"""The intents of a chatbot that has no list of its own."""

DEFAULT_FLAGS = ("asks-for-human", "abuse", "personal-data", "churn-risk")
"""The flags of a chatbot that has no list of its own."""

NO_INTENT = "none"
"""The intent of a message that has none of the list's."""

MAX_TOPICS = 3
MAX_LABEL_CHARACTERS = 64
"""Of an intent, a flag, a topic."""
MAX_VOCABULARY = 100
"""Intents, or flags, of one chatbot."""
MAX_REASONING_CHARACTERS = 500
