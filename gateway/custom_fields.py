"""The schema of a chatbot's custom fields, as the admin API has it. Pure."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from gateway.errors import bad_request
from schemas.chatbots import (
    FIELD_TYPES,
    MAX_CUSTOM_FIELDS,
    MAX_FIELD_NAME_CHARACTERS,
    FieldType,
)

_PATH = "$.settings.custom_fields"
_NAMES = {"propertyNames": {"minLength": 1, "maxLength": MAX_FIELD_NAME_CHARACTERS}}
CustomFieldTypes = Annotated[
    dict[str, FieldType],
    Meta(
        max_length=MAX_CUSTOM_FIELDS,
        description="The custom fields that captures may send without a warning, by name.",
        extra_json_schema=_NAMES,
    ),
]
# A type is a string here, and not one of three: so a fault's path can name the field.
_Type = Annotated[str, Meta(extra_json_schema={"enum": list(FIELD_TYPES)})]
CustomFieldChanges = Annotated[
    dict[str, _Type | None],
    Meta(
        max_length=MAX_CUSTOM_FIELDS,
        description="Added or changed, by name; null takes one out, null for all takes all out.",
        extra_json_schema=_NAMES,
    ),
]


def merged_fields(
    schema: Mapping[str, FieldType], changes: Mapping[str, str | None] | UnsetType | None
) -> dict[str, FieldType]:
    """Return a schema after changes, merged as RFC 7396 does it.

    Raises:
        RefusedError: 400, with the path of the field that can't be, whatever the schema is; or
            there would be too many of them.

    """
    if changes is None:
        return {}
    fields = dict(schema)
    for name, wanted in ({} if changes is UNSET else changes).items():
        if not 1 <= len(name) <= MAX_FIELD_NAME_CHARACTERS:
            raise bad_request(
                "invalid_setting",
                f"Expected names of 1 to {MAX_FIELD_NAME_CHARACTERS} characters",
                _PATH,
            )
        fields.pop(name, None)
        if wanted is not None:
            fields[name] = _type_of(name, wanted)
    if len(fields) > MAX_CUSTOM_FIELDS:
        raise bad_request(
            "invalid_setting", f"A chatbot takes {MAX_CUSTOM_FIELDS} custom fields", _PATH
        )
    return fields


def _type_of(name: str, wanted: str) -> FieldType:
    for known in FIELD_TYPES:
        if known == wanted:
            return known
    raise bad_request(
        "invalid_setting",
        f"Expected null, or a type of {', '.join(FIELD_TYPES)}",
        f"{_PATH}.{name}",
    )
