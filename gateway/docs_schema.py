"""A JSON schema as rows for a person: one member a row, those of its members below it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

_REFERENCE = "#/components/schemas/"
_MAX_DEPTH = 8
"""Of types within types: our own don't go round in circles, and are less deep."""


class Row(NamedTuple):
    """One member of an object.

    Attributes:
        path: from the body on, as in `messages[].role`.
        depth: of objects around it.
        kind: what it may be.
        is_required: whether it must be there.
        is_deprecated: whether it should not be used any more.
        limits: of its value, in words.
        description: for a person.

    """

    path: str
    depth: int
    kind: str
    is_required: bool
    is_deprecated: bool
    limits: str
    description: str


def rows_of(schema: Schema, types: Mapping[str, Schema]) -> list[Row]:
    """Return the members of a body.

    Args:
        schema: of the body.
        types: the schemas that references name.

    """
    return list(_members(schema, types, "", 0))


def _members(schema: Schema, types: Mapping[str, Schema], path: str, depth: int) -> Iterator[Row]:
    shape, _ = _resolved(schema, types)
    if depth > _MAX_DEPTH:
        return
    if shape.get("type") == "array":
        yield from _members(shape["items"], types, f"{path}[]", depth)
    required = shape.get("required", ())
    for name, member in shape.get("properties", {}).items():
        inner, is_nullable = _resolved(member, types)
        below = f"{path}.{name}" if path else name
        kind = kind_of(member, types)
        yield Row(
            below,
            depth,
            f"{kind} or null" if is_nullable else kind,
            name in required,
            bool(member.get("deprecated")),
            ", ".join(_limits({**inner, **member})),
            # What is said of the member says more than what is said of its type.
            member.get("description") or inner.get("description", ""),
        )
        yield from _members(inner, types, below, depth + 1)


def _resolved(schema: Schema, types: Mapping[str, Schema]) -> tuple[Schema, bool]:
    """Return a schema behind its references, and whether null is one of its choices."""
    is_nullable = False
    while True:
        choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
        if "$ref" in schema:
            schema = types[schema["$ref"].removeprefix(_REFERENCE)]
        elif len(choices) == 1:
            is_nullable = is_nullable or len(schema["anyOf"]) > 1
            schema = choices[0]
        else:
            return schema, is_nullable


def kind_of(schema: Schema, types: Mapping[str, Schema]) -> str:
    """Return what a value is, in a few words; what it may be besides null."""
    shape, _ = _resolved(schema, types)
    if "anyOf" in shape:
        return " or ".join(_choice(choice) for choice in shape["anyOf"])
    if "enum" in shape:
        return " | ".join(_literal(value) for value in shape["enum"])
    kind = str(shape.get("type", "any value"))
    if kind == "array":
        return f"array of {kind_of(shape['items'], types)}"
    values = shape.get("additionalProperties")
    if kind == "object" and isinstance(values, Mapping):
        _, is_nullable = _resolved(values, types)
        return f"object of {kind_of(values, types)}" + (" or null" if is_nullable else "")
    said = schema.get("format") or shape.get("format")
    return f"{kind}, {said}" if said else kind


def _choice(schema: Schema) -> str:
    return str(schema.get("$ref", schema.get("type", ""))).removeprefix(_REFERENCE)


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def _limits(schema: Schema) -> Iterator[str]:
    for least, most, unit in (
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " members"),
        ("minimum", "maximum", ""),
    ):
        if least in schema and most in schema:
            yield f"{schema[least]:,} to {schema[most]:,}{unit}"
        elif most in schema:
            yield f"at most {schema[most]:,}{unit}"
        elif least in schema:
            yield f"at least {schema[least]:,}{unit}"
    if "exclusiveMaximum" in schema:
        yield f"under {schema['exclusiveMaximum']:,}"
    if "pattern" in schema:
        yield f"matches {schema['pattern']}"
    if schema.get("default") is not None:
        yield f"default {schema['default']}"
