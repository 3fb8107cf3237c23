"""Analysis by a language model, at any endpoint that speaks OpenAI's chat completions.

`LlmAnalyzer` needs the extra `llm`; the rest is there without it, and without the second or more
that the import of OpenAI's client takes.
"""

from typing import TYPE_CHECKING

from analysis.llm.budget import (
    Budget,
    DailyBudget,
    DailyLimits,
    Prices,
    Spending,
    Tally,
    Usage,
)
from analysis.llm.config import LlmConfig

if TYPE_CHECKING:
    from analysis.llm.analyzer import LlmAnalyzer

__all__ = [
    "Budget",
    "DailyBudget",
    "DailyLimits",
    "LlmAnalyzer",
    "LlmConfig",
    "Prices",
    "Spending",
    "Tally",
    "Usage",
]


def __getattr__(name: str) -> type["LlmAnalyzer"]:
    if name != "LlmAnalyzer":
        raise AttributeError(name)
    from analysis.llm.analyzer import LlmAnalyzer

    return LlmAnalyzer
