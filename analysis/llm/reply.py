"""What an endpoint answers: a chat completion, as OpenAI's API reference describes it.

https://developers.openai.com/api/reference/resources/chat: read here, not by the client, because
the client believes whatever shape comes.
"""

import msgspec
from msgspec import Struct

from analysis.llm.budget import Usage

_UNFINISHED = ("length", "content_filter")


class Reply(Struct, frozen=True):
    """What the model said.

    Attributes:
        text: None where it refused, or did not come to an end.
        usage: None where the endpoint does not tell it.

    """

    text: str | None
    usage: Usage | None


class _Message(Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None


class _Tokens(Struct):
    prompt_tokens: int
    completion_tokens: int


class _Completion(Struct):
    choices: list[_Choice]
    usage: _Tokens | None = None


_COMPLETION = msgspec.json.Decoder(_Completion)


def reply_of(answer: bytes) -> Reply:
    """Return what a response's body says.

    Raises:
        msgspec.DecodeError: it is no chat completion.

    """
    completion = _COMPLETION.decode(answer)
    choice = completion.choices[0] if completion.choices else None
    tokens = completion.usage
    usage = None
    if tokens is not None:
        usage = Usage(max(tokens.prompt_tokens, 0), max(tokens.completion_tokens, 0))
    if choice is None or choice.message.refusal or choice.finish_reason in _UNFINISHED:
        return Reply(None, usage)
    return Reply(choice.message.content, usage)
