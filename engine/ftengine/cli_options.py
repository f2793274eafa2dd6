"""An options model as rows: what each option is called, takes, defaults to and does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from ftengine.plugin import Options

__all__ = ["OptionRow", "option_rows"]


@dataclass(frozen=True)
class OptionRow:
    """One option. `default` is JSON data, and None where `required` is true."""

    name: str
    type: str
    required: bool
    default: Any
    description: str


def option_rows(options: type[Options]) -> list[OptionRow]:
    """The options of a component in the order of the model's fields."""
    schema = options.model_json_schema(by_alias=False)
    definitions = schema.get("$defs", {})
    return [
        OptionRow(
            name=name,
            type=_type(schema["properties"][name], definitions),
            required=field.is_required(),
            default=_default(field),
            description=" ".join((field.description or "").split()),
        )
        for name, field in options.model_fields.items()
    ]


def _default(field: FieldInfo) -> Any:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    return TypeAdapter(Any).dump_python(value, mode="json", fallback=str)


_WORDS = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "null"}
_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON Schema in few words: ``int >= 1``, ``a | b``, ``list of str``, ``float | null``."""
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " | ".join("null" if value is None else str(value) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " | ".join(dict.fromkeys(_type(part, definitions) for part in schema[key]))
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_type(part, definitions) for part in schema['prefixItems'])}]"
        return f"list of {_type(schema.get('items', {}), definitions)}"
    if kind == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return f"mapping to {_type(values, definitions)}"
        keys = ", ".join(schema.get("properties", {}))
        return f"mapping of {keys}" if keys else "mapping"
    if schema.get("format") in ("path", "file-path", "directory-path"):
        return "path"
    limits = [f"{sign} {schema[key]}" for key, sign in _LIMITS.items() if key in schema]
    return " ".join([_WORDS.get(str(kind), "any"), ", ".join(limits)]).strip()
