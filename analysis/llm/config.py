"""What an LLM analyzer is told at its start."""

from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from analysis.llm.budget import Prices


class LlmConfig(Struct, frozen=True, kw_only=True):
    """An endpoint, and how it is used. Its representation holds no secret.

    Raises:
        ValueError: the URL holds a user or a password.

    Attributes:
        url: the endpoint's base, such as `https://api.example.com/v1`.
        model: as the endpoint calls it.
        api_key: sent as a bearer token; empty for an endpoint that asks for none.
        concurrency: requests under way at once, of one analyzer.
        timeout_seconds: for one request, from its first byte to the answer's last.
        batch_size: subjects that the analyzer is given at once: people's and chatbots' messages by
            turns, which go into calls of their own.
        subjects_per_call: subjects that share a request at most.
        isolate: whether each subject has a request of its own: a message can then change no other's
            result, whatever it says, and the instructions are paid for with each.
        prices: what tokens cost.
        attempts: of one request, where its fault may pass.
        backoff_seconds: the longest wait before the second attempt; it doubles with each.
        temperature: None leaves it to the endpoint, as models that take no other value need.
        max_completion_tokens: of one answer, the model's thoughts included.

    """

    url: str
    model: str
    api_key: str = ""
    concurrency: int = 8
    timeout_seconds: float = 60.0
    batch_size: int = 20
    subjects_per_call: int = 10
    isolate: bool = False
    prices: Prices = Prices()
    attempts: int = 4
    backoff_seconds: float = 0.5
    temperature: float | None = 0.0
    max_completion_tokens: int = 8192

    def __post_init__(self) -> None:
        # The client's HTTP library logs URLs.
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("the URL of the LLM endpoint holds a password: give it as the key")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown; `rich` asks for it in tracebacks too."""
        shown = [name for name in self.__struct_fields__ if name != "api_key"]
        return [(name, getattr(self, name)) for name in shown]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"LlmConfig({shown})"
