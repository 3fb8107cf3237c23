"""Finds analyzers by name, ours and other packages', and makes them."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from msgspec import Struct

from analysis.llm import Budget, LlmConfig
from analysis.protocol import ENTRY_POINTS, Analyzer
from schemas.analysis import KINDS

MAX_NAME_CHARACTERS = 64
"""Of an analyzer's name, and of its version."""


class AnalyzerSetupError(Exception):
    """Raised when an analyzer can't be made; says what to do."""


class Host(Struct, frozen=True):
    """What a worker hands to the factories of analyzers.

    Attributes:
        budget: knows what may be spent on a chatbot, and is told what was.
        llm: the endpoint that the settings name, None where they name none.

    """

    budget: Budget
    llm: LlmConfig | None = None


Factory = Callable[[Host], Analyzer]
"""What an entry point names. It may raise AnalyzerSetupError."""


def make(names: Sequence[str], host: Host) -> list[Analyzer]:
    """Return the analyzers of these names, in their order.

    Raises:
        AnalyzerSetupError: there is none of a name, or it lacks what it needs.

    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    analyzers = []
    for name in names:
        if name not in found:
            known = ", ".join(sorted(found))
            raise AnalyzerSetupError(
                f"there is no analyzer {name!r} here, but {known}: install the package that brings "
                f"it, with an entry point of the group {ENTRY_POINTS}"
            )
        factory: Factory = found[name].load()
        analyzers.append(_usable(name, factory(host)))
    return analyzers


def _usable(name: str, analyzer: Analyzer) -> Analyzer:
    """Return it, where results under its name and version can be written."""
    if not all(0 < len(text) <= MAX_NAME_CHARACTERS for text in (analyzer.name, analyzer.version)):
        raise AnalyzerSetupError(
            f"analyzer {name!r}: expected a name and a version of 1 to {MAX_NAME_CHARACTERS} "
            "characters"
        )
    if analyzer.batch_size < 1 or not analyzer.kinds or not analyzer.kinds <= set(KINDS):
        raise AnalyzerSetupError(
            f"analyzer {name!r}: expected a batch_size from 1 on, and kinds of {', '.join(KINDS)}"
        )
    return analyzer


def offline(_: Host) -> Analyzer:
    """Make the offline analyzer."""
    from analysis.offline import OfflineAnalyzer

    return OfflineAnalyzer()


def llm(host: Host) -> Analyzer:
    """Make the analyzer that asks a language model."""
    if host.llm is None:
        raise AnalyzerSetupError(
            "analyzer 'llm' needs OPENBAT_LLM_URL and OPENBAT_LLM_MODEL: the base of an endpoint "
            "that speaks OpenAI's protocol, such as http://127.0.0.1:11434/v1, and a model there"
        )
    try:
        from analysis.llm import LlmAnalyzer
    except ImportError as error:
        raise AnalyzerSetupError(
            f"analyzer 'llm' lacks {error.name}: pip install 'openbat-capture[llm]'"
        ) from error
    return LlmAnalyzer(host.llm, host.budget)
