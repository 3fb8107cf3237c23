"""Which texts look as if they spoke to the model instead of the chatbot.

They are sent in a request of their own. That is a sieve, not a wall: a text that is not caught may
still speak to a model that listens (docs/analysis-llm.md). A false alarm costs a request, so the
patterns are broad. The phrases follow the attack kinds that OWASP lists under LLM01, prompt
injection: https://genai.owasp.org/llmrisk/llm01-prompt-injection/.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

MAX_REMEMBERED = 1_000
"""Texts whose verdict is kept: each comes again with every later message of its conversation."""

_COMMANDS = (
    "ignore|disregard|forget|override|overrule|bypass|skip|"
    "ignorier\\w*|vergiss|missachte|ignora\\w*|olvida\\w*|ignorez|oublie\\w*|esque[cç]\\w*"
)
_RULES = (
    "instruct\\w*|prompts?|rules?|directions?|guidelines?|system|above|previous|prior|earlier|"
    "anweisung\\w*|regeln|instrucci\\w*|instru[cç]\\w*|consigne\\w*|r[eè]gles|reglas|regras"
)
_JUDGING = "label\\w*|classif\\w*|mark\\w*|rate|rated|rating|score\\w*|judge\\w*|analy[sz]\\w*"
_OTHERS = "all|every\\w*|each|other\\w*|any|rest|items?|entries|results?|answers?"

_PATTERNS = (
    rf"\b(?:{_COMMANDS})\b.{{0,60}}\b(?:{_RULES})\b",
    rf"\b(?:{_JUDGING})\b.{{0,40}}\b(?:{_OTHERS})\b",
    rf"\b(?:{_OTHERS})\b.{{0,40}}\b(?:{_JUDGING})\b",
    # What speaks of the model, its orders or its answer.
    r"\b(?:system|developer|hidden|initial|original|new)\s+(?:prompts?|messages?|instructions?)\b",
    r"\b(?:you are now|from now on|act as|pretend (?:to|that|you)|jailbreak\w*|developer mode)\b",
    r"\b(?:language model|llm|chatgpt|gpt-?\d\w*|as an ai)\b",
    r"\b(?:sentiment|behaviou?r|json|output|respond|reply)\b.{0,40}\b(?:positive|negative|only|with)\b",
    # Markers of roles, as chat templates and transcripts have them.
    r"<\|\w*\|?>?|\[/?inst\]|<</?sys>>|</?s>|</?(?:system|assistant|user|instructions?)>",
    r"(?m:^\W{0,6}(?:system|assistant|developer|instructions?)\W{0,3}:)",
    r"(?m:^#{2,}\s)",
    # What looks like our own JSON, or an item's id.
    r"[\"']?\b(?:id|items|labels?|sentiment|intent|topics|flags|behaviour|resolution)[\"']\s*:",
    r"\b[0-9a-f]{16}\b",
    # What a person can't read: encoded, or written in characters that show nothing.
    r"[A-Za-z0-9+/=_-]{80,}",
)
_SPEAKS = re.compile("|".join(_PATTERNS), re.IGNORECASE | re.DOTALL)
_UNSEEN = re.compile("[\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\u00ad\U000e0000-\U000e007f]")
"""Zero-width and direction characters, soft hyphens, tags. Not the joiners, which emoji need."""


@lru_cache(MAX_REMEMBERED)
def looks_like_an_order(text: str) -> bool:
    """Return whether a text may be meant for the model. Linear in the text's length."""
    return bool(_UNSEEN.search(text) or _SPEAKS.search(unicodedata.normalize("NFKC", text)))


def any_looks_like_an_order(texts: Iterable[str]) -> bool:
    return any(looks_like_an_order(text) for text in texts)
