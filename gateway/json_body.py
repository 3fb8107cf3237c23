"""From a body's bytes to a typed value, with the path of the first fault. Pure."""

import re
from collections.abc import Callable
from typing import TypeVar, get_args

import msgspec

from gateway.errors import bad_request
from gateway.members import AT
from schemas.capture import Role

T = TypeVar("T")

_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_PYTHON_TYPE = re.compile(rf"\b({'|'.join(_JSON_TYPES)})\b")
_AT_PATH = re.compile(r"(?s)(.*) - at `(?:key in )?(\$.*)`")
_UNKNOWN = re.compile(r"(?s)Object contains unknown field `(.*)`")


def decoded(decode: Callable[[str], T], body: bytes) -> T:
    """Return the value that a body holds.

    Args:
        decode: the method of a msgspec JSON decoder.
        body: UTF-8.

    Raises:
        RefusedError: 400, with the path of the first fault; a member that is not known is one,
            where the type forbids those.

    """
    try:
        # msgspec passes over strings in members that it ignores; this looks at all of them.
        return decode(str(body, "utf-8"))
    except UnicodeDecodeError:
        raise bad_request("invalid_json", "The body is not UTF-8.", "$") from None
    except RecursionError:
        raise bad_request("invalid_json", "The body is nested too deeply.", "$") from None
    except msgspec.ValidationError as error:
        message, path = _in_json_words(str(error))
        raise bad_request("invalid_body", message, path) from None
    except msgspec.DecodeError as error:
        message = str(error)
        if message == "Input data was truncated":
            # What msgspec also says of half a surrogate pair.
            message = "JSON is malformed: it ends early, or holds half of a surrogate pair"
        raise bad_request("invalid_json", message if body else "The body is empty.", "$") from None


def _in_json_words(error: str) -> tuple[str, str]:
    """Return msgspec's message with JSON's names for Python's types, and the path."""
    match = _AT_PATH.fullmatch(error)
    message, path = match.groups() if match else (error, "$")
    message, _, below = message.partition(AT)
    unknown = _UNKNOWN.fullmatch(message)
    if unknown:
        return "There is no such member", f"{path}.{unknown.group(1)}"
    if message.startswith("Invalid enum value"):
        # The one enumeration that bodies have.
        return f"{message}, expected one of {', '.join(get_args(Role))}", path + below
    return _PYTHON_TYPE.sub(lambda found: _JSON_TYPES[found.group()], message), path + below
