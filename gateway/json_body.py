"""From a body's bytes to a typed value, with the path of the first fault. Pure."""

import re
from typing import TypeVar

import msgspec

from gateway.errors import bad_request

T = TypeVar("T")

_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_PYTHON_TYPE = re.compile(rf"\b({'|'.join(_JSON_TYPES)})\b")
_AT_PATH = re.compile(r"(?s)(.*) - at `(\$.*)`")
_UNKNOWN = re.compile(r"(?s)Object contains unknown field `(.*)`")


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return the value that a body holds.

    Raises:
        RefusedError: 400, with the path of the first fault; a member that is not known is one,
            where the type forbids those.

    """
    try:
        return decoder.decode(str(body, "utf-8"))
    except UnicodeDecodeError:
        raise bad_request("invalid_json", "The body is not UTF-8.", "$") from None
    except RecursionError:
        raise bad_request("invalid_json", "The body is nested too deeply.", "$") from None
    except msgspec.ValidationError as error:
        match = _AT_PATH.fullmatch(str(error))
        message, path = match.groups() if match else (str(error), "$")
        unknown = _UNKNOWN.fullmatch(message)
        if unknown:
            path, message = f"{path}.{unknown.group(1)}", "There is no such member"
        else:
            message = _PYTHON_TYPE.sub(lambda found: _JSON_TYPES[found.group()], message)
        raise bad_request("invalid_body", message, path) from None
    except msgspec.DecodeError as error:
        message = str(error) if body else "The body is empty."
        raise bad_request("invalid_json", message, "$") from None
