"""The JSON Schema of a config file, made from the plugins that are installed, for editors and other tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ftengine import augment
from ftengine.config import Config
from ftengine.config_refs import HeadRef, LossRef, Weights
from ftengine.host import Host
from ftengine.optimizers import OPTIMIZERS
from ftengine.schedule import SCHEDULES

Schema = dict[str, Any]


def config_schema(host: Host) -> Schema:
    """The schema (draft 2020-12) of a whole file: every key, component and option, with its description."""
    schema = Config.model_json_schema()
    definitions: Schema = schema["$defs"]
    weights = Weights.model_json_schema()
    parts: Schema = {kind: _components(host, kind, definitions) for kind in ("task", "metric", "freeze", "dataset")}
    for kind, beside in (("head", HeadRef), ("loss", LossRef)):
        own = {key: rule for key, rule in beside.model_json_schema()["properties"].items() if key != "name"}
        parts[kind] = _components(host, kind, definitions, extra=own)
    parts["losses"] = {"anyOf": [{"$ref": "#/$defs/loss"}, {"type": "array", "items": {"$ref": "#/$defs/loss"}}]}
    parts["backbone"] = _components(host, "backbone", definitions, extra={"weights": weights})
    parts["optimizer"] = _named(OPTIMIZERS, "optimizer", definitions)
    parts["schedule"] = _named(SCHEDULES, "schedule", definitions)
    parts["metrics"] = {"type": "array", "items": {"$ref": "#/$defs/metric"}}
    transforms = augment.schema()
    definitions |= transforms.pop("$defs", {})
    parts["augment"] = transforms
    for name, part in parts.items():
        definitions[name] = part
    places = {"data": "dataset", "loss": "losses"}
    for properties in (schema["properties"], definitions["TaskConfig"]["properties"]):
        for key in list(properties):
            name = places.get(key, key)
            if name in parts:
                description = properties[key].get("description")
                properties[key] = {"$ref": f"#/$defs/{name}"} | ({"description": description} if description else {})
    for unused in ("Ref", "BackboneRef", "DataRef", "HeadRef", "LossRef", "Weights"):
        definitions.pop(unused, None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ftengine config",
        "description": "A run of ftengine: what to fine-tune, on what, and how.",
        **{key: value for key, value in schema.items() if key not in ("title", "description")},
        "required": ["backbone"],
    }


def _components(host: Host, kind: str, definitions: Schema, extra: Mapping[str, Schema] | None = None) -> Schema:
    """Any component of `kind`: its name, or a mapping of its name and options."""
    key = "format" if kind == "dataset" else "name"
    mappings = []
    for component in host.components:
        if component.kind == kind:
            scope = ".".join(filter(None, (kind, component.task, component.name)))
            mappings.append(
                _mapping(key, component.name, component.spec.summary, component.spec.options, scope, definitions, extra)
            )
    return _either(key, mappings)


def _named(table: Mapping[str, type[BaseModel]], kind: str, definitions: Schema) -> Schema:
    mappings = [
        _mapping("name", name, (model.__doc__ or "").split("\n")[0], model, f"{kind}.{name}", definitions)
        for name, model in table.items()
    ]
    return _either("name", mappings)


def _either(key: str, mappings: list[Schema]) -> Schema:
    names = sorted({mapping["properties"][key]["const"] for mapping in mappings})
    return {"anyOf": [{"enum": names}, *mappings]}


def _mapping(
    key: str,
    name: str,
    summary: str,
    options: type[BaseModel],
    scope: str,
    definitions: Schema,
    extra: Mapping[str, Schema] | None = None,
) -> Schema:
    """One component written as a mapping; definitions of its options' inner models move to the root."""
    schema = options.model_json_schema(ref_template=f"#/$defs/{scope}.{{model}}")
    for inner, definition in schema.pop("$defs", {}).items():
        definitions[f"{scope}.{inner}"] = definition
    return {
        "type": "object",
        "description": summary,
        "properties": {key: {"const": name}, **(extra or {}), **schema.get("properties", {})},
        "required": [key, *schema.get("required", [])],
        "additionalProperties": False,
    }
