"""How a message sounds: VADER's score, and its label.

The lexicon and the rules are those of Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for
Sentiment Analysis of Social Media Text", ICWSM 2014, as the package nltk-vader-sentiment carries
them. It was taken over vaderSentiment, which agrees on 95 to 99 of 100 sentences, because its time
is linear in the text: vaderSentiment takes seconds for a few thousand emoji.
"""

import re

from vader import SentimentIntensityAnalyzer
from vader.constants import SPECIAL_CASES

from analysis.offline.words import bounded, is_english, words
from analysis.protocol import Finding
from schemas.analysis import Sentiment

THRESHOLD = 0.2
"""Of the score, either way. VADER's authors use 0.05; here one weak word is no mood yet."""

_NO_MOOD = frozenset(
    {"please", "help", "helps", "yes", "yeah", "no", "ok", "okay", "sure", "want", "number", "play",
     "playing", "free", "interested", "share", "shared", "top", "save", "party", "join", "cancel",
     "pay"}
)  # fmt: skip
"""Words that VADER rates, and that requests to a chatbot are made of."""

_NO_LIKING = dict.fromkeys(
    ("would like", "i'd like", "id like", "like to", "looks like", "sounds like"), 0.0
)


_DECLINED = re.compile(
    r"\A\s*(?:nope|nothing|nah|not (?:now|yet|needed|today|right now|at all)|no)"
    r"(?:\s{0,9}[,.;:!]+|(?=\s+(?:thank|thanks|thx)\b))",
    re.IGNORECASE,
)
"""An answer to the question before, no mood: VADER would take the thanks that follow as denied."""


def _analyzer() -> SentimentIntensityAnalyzer:
    rated = SentimentIntensityAnalyzer().lexicon
    return SentimentIntensityAnalyzer(
        {word: rating for word, rating in rated.items() if word not in _NO_MOOD},
        special_cases={**SPECIAL_CASES, **_NO_LIKING},
    )


_ANALYZER = _analyzer()


def label_of(score: float) -> Sentiment:
    """Return the label of a score of -1 to 1."""
    if score >= THRESHOLD:
        return "positive"
    return "negative" if score <= -THRESHOLD else "neutral"


def score_of(text: str) -> float:
    """Return -1 to 1; 0 for what is not English: its words can look like others of the lexicon."""
    if not is_english(words(text)):
        return 0.0
    return _ANALYZER.polarity_scores(_DECLINED.sub("", bounded(text)))["compound"]


def sentiment(text: str) -> Finding:
    """Return the sentiment of a user's message."""
    score = score_of(text)
    return Finding("sentiment", label_of(score), score=score)
