"""What a capture says about who takes part: user, organization, session and custom fields.

Pure. Members that the types don't name are kept as they were sent.
"""

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from schemas.capture import (
    MAX_DEPTH,
    Capture,
    CustomFields,
    Instant,
    Members,
    UserMembers,
    type_names,
)
from schemas.chatbots import FieldType
from schemas.records import Fields
from schemas.times import FIRST_INSTANT, LAST_INSTANT, microseconds

AT = "\0"
"""Between a fault's message and its path below the value that is being decoded."""

_FIRST_INT, _LAST_INT = -(2**63), 2**64 - 1
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def decode_hook(kind: type, value: Any) -> Any:
    """Decode what msgspec does not know by itself: it calls this in the order of the body.

    Raises:
        ValueError: a fault; its path below the value, if any, stands after AT.

    """
    if kind is Instant:
        if type(value) is str and _RFC_3339.fullmatch(value):
            with contextlib.suppress(msgspec.ValidationError):
                return Instant(_instant(msgspec.convert(value, datetime)))
        raise ValueError("Expected a date-time as in RFC 3339")
    if type(value) is not dict:
        raise ValueError(f"Expected `object`, got `{type_names.get(type(value), 'array')}`")
    if issubclass(kind, Members):
        return _members(kind, value)
    return CustomFields(
        # An object or an array is left out later on, with a warning.
        {
            name: item if isinstance(item, dict | list) else _kept(item, f".{name}", 0)
            for name, item in value.items()
        }
    )


def fields_of(capture: Capture, schema: Mapping[str, FieldType]) -> tuple[Fields, dict[str, str]]:
    """Return the capture's fields by group, empty groups left out, and warnings by field.

    Args:
        capture: as it was decoded.
        schema: the chatbot's custom fields and their types.

    """
    user = dict(capture.user or {})
    if capture.user_id is not None:
        user.setdefault("id", capture.user_id)
    custom, warnings = custom_fields({**(capture.metadata or {}), **(capture.custom or {})}, schema)
    groups = {
        "user": user,
        "organization": dict(capture.organization or {}),
        "session": dict(capture.session or {}),
        "custom": custom,
    }
    return {name: members for name, members in groups.items() if members}, warnings


def custom_fields(
    sent: Mapping[str, Any], schema: Mapping[str, FieldType]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the custom fields to keep, and at most one warning a field, under `custom.<name>`.

    The value's kind is checked before the schema. A value that can't be a custom field's is left
    out; one that the schema does not expect is kept.
    """
    kept: dict[str, Any] = {}
    warnings: dict[str, str] = {}
    for name, value in sent.items():
        got = type_names.get(type(value))
        if got is None:
            warning = f"Custom field '{name}' must be a string, number or boolean"
            warnings[f"custom.{name}"] = warning
            continue
        kept[name] = value
        expected = schema.get(name)
        if expected is None:
            warnings[f"custom.{name}"] = f"Custom field '{name}' not in schema"
        elif expected != got:
            warnings[f"custom.{name}"] = f"Custom field '{name}' expected {expected}, got {got}"
    return kept, warnings


def _members(kind: type[Members], sent: dict[str, Any]) -> Members:
    present = {name: value for name, value in sent.items() if value is not None}
    try:
        msgspec.convert(present, kind.shape)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise ValueError(f"{message}{AT}{path.rstrip('`')}") from None
    if kind is UserMembers and "createdAt" in present:
        try:
            _instant(datetime.fromisoformat(present["createdAt"]))
        except ValueError:
            fault = "Expected a time as in ISO 8601, in the years 1900 to 2299"
            raise ValueError(f"{fault}{AT}.createdAt") from None
    return kind(
        {
            name: value if type(value) is str else _kept(value, f".{name}", 0)
            for name, value in present.items()
        }
    )


def _instant(value: datetime) -> int:
    since = microseconds(value)
    if not FIRST_INSTANT <= since <= LAST_INSTANT:
        raise ValueError("Expected a time in the years 1900 to 2299")
    return since


def _kept(value: Any, path: str, depth: int) -> Any:
    """Return the value with whole numbers beyond 64 bits as doubles."""
    if isinstance(value, dict | list):
        if depth == MAX_DEPTH:
            raise ValueError(f"Nested deeper than {MAX_DEPTH}{AT}{path}")
        if isinstance(value, dict):
            return {name: _kept(item, path, depth + 1) for name, item in value.items()}
        return [_kept(item, path, depth + 1) for item in value]
    if type(value) is int and not _FIRST_INT <= value <= _LAST_INT:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"Number out of range{AT}{path}") from None
    return value
