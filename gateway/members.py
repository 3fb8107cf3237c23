"""What a capture says about who takes part: user, organization, session and custom fields.

Pure. Members that the types don't name are kept as they were sent.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from gateway.errors import bad_request
from schemas.capture import Capture, Organization, Session, User, type_names
from schemas.chatbots import FieldType
from schemas.records import Fields
from schemas.times import FIRST_INSTANT, LAST_INSTANT, microseconds

MAX_DEPTH = 32
"""How deep members that the types don't name may nest; the known ones don't nest."""

_FIRST_INT, _LAST_INT = -(2**63), 2**64 - 1


def fields_of(capture: Capture, schema: Mapping[str, FieldType]) -> tuple[Fields, list[str]]:
    """Return the capture's fields by group, empty groups left out, and its warnings.

    Args:
        capture: as it was decoded.
        schema: the chatbot's custom fields and their types.

    Raises:
        RefusedError: 400, a known member is of the wrong type, or a value is out of its range.

    """
    user = _members("user", capture.user, User)
    if capture.user_id is not None:
        user.setdefault("id", capture.user_id)
    custom, warnings = custom_fields(capture.metadata, capture.custom, schema)
    groups = {
        "user": user,
        "organization": _members("organization", capture.organization, Organization),
        "session": _members("session", capture.session, Session),
        "custom": custom,
    }
    return {name: members for name, members in groups.items() if members}, warnings


def custom_fields(
    metadata: dict[str, Any] | None,
    custom: dict[str, Any] | None,
    schema: Mapping[str, FieldType],
) -> tuple[dict[str, Any], list[str]]:
    """Return the custom fields to keep, and at most one warning a field.

    The value's kind is checked before the schema. A value that can't be a custom field's is left
    out; one that the schema does not expect is kept.
    """
    kept: dict[str, Any] = {}
    warnings = []
    for name, value in {**(metadata or {}), **(custom or {})}.items():
        got = type_names.get(type(value))
        if got is None:
            warnings.append(f"Custom field '{name}' must be a string, number or boolean")
            continue
        kept[name] = _kept(value, f"$.custom.{name}", 0)
        expected = schema.get(name)
        if expected is None:
            warnings.append(f"Custom field '{name}' not in schema")
        elif expected != got:
            warnings.append(f"Custom field '{name}' expected {expected}, got {got}")
    return kept, warnings


def instant(value: datetime, path: str) -> int:
    """Return microseconds since the epoch; a time without an offset is UTC.

    Raises:
        RefusedError: 400, outside the years that ClickHouse's DateTime64 holds.

    """
    since = microseconds(value)
    if not FIRST_INSTANT <= since <= LAST_INSTANT:
        raise bad_request("invalid_body", "Expected a time in the years 1900 to 2299", path)
    return since


def _members(
    group: str, members: dict[str, Any] | None, shape: type[User | Organization | Session]
) -> dict[str, Any]:
    if not members:
        return {}
    present = {name: value for name, value in members.items() if value is not None}
    try:
        known = msgspec.convert(present, shape)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise bad_request("invalid_body", message, f"$.{group}{path.rstrip('`')}") from None
    if isinstance(known, User) and known.created_at is not None:
        instant(known.created_at, f"$.{group}.createdAt")
    return {
        name: value if type(value) is str else _kept(value, f"$.{group}.{name}", 0)
        for name, value in present.items()
    }


def _kept(value: Any, path: str, depth: int) -> Any:
    """Return the value with whole numbers beyond 64 bits as doubles."""
    if depth > MAX_DEPTH:
        raise bad_request("invalid_body", f"Nested deeper than {MAX_DEPTH}", path)
    if isinstance(value, dict):
        return {name: _kept(item, path, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_kept(item, path, depth + 1) for item in value]
    if type(value) is int and not _FIRST_INT <= value <= _LAST_INT:
        double = float(value) if abs(value) < 1 << 1023 else math.inf
        if math.isinf(double):
            raise bad_request("invalid_body", "Number out of range", path)
        return double
    return value
