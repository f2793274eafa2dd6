"""The JSON Schema of a config file, made from the plugins that are installed, for editors and other tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ftengine import augment
from ftengine.config import Config
from ftengine.config_refs import FreezeRef, HeadRef, LossRef, OptimizerRef, Weights
from ftengine.host import Host
from ftengine.optimizers import OPTIMIZERS
from ftengine.schedule import SCHEDULES

Schema = dict[str, Any]


def config_schema(host: Host) -> Schema:
    """The schema (draft 2020-12) of a whole file: every key, component and option, with its description."""
    schema = Config.model_json_schema()
    definitions: Schema = schema["$defs"]
    weights = Weights.model_json_schema()
    parts: Schema = {
        kind: _components(host, kind, definitions) for kind in ("task", "metric", "adapter", "regularizer", "dataset")
    }
    for kind, beside in (("head", HeadRef), ("loss", LossRef), ("freeze", FreezeRef)):
        parts[kind] = _components(host, kind, definitions, extra=_own(beside, definitions))
    parts["strategy"] = {"enum": host.names("strategy")}
    several = {"$ref": "#/$defs/regularizer"}
    parts["regularizers"] = {"anyOf": [several, {"type": "array", "items": several}]}
    parts["losses"] = {"anyOf": [{"$ref": "#/$defs/loss"}, {"type": "array", "items": {"$ref": "#/$defs/loss"}}]}
    parts["backbone"] = _components(host, "backbone", definitions, extra={"weights": weights})
    parts["optimizer"] = _named(OPTIMIZERS, "optimizer", definitions, _own(OptimizerRef, definitions))
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
    for unused in [name for name in definitions if name.endswith("Ref") or name == "Weights"]:
        definitions.pop(unused)
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
    return _either(key, mappings, optional=kind == "freeze")


def _own(ref: type[BaseModel], definitions: Schema) -> dict[str, Schema]:
    """What a section takes beside a component's name and options; definitions of inner models move to the root."""
    schema = ref.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= schema.pop("$defs", {})
    return {key: rule for key, rule in schema["properties"].items() if key != "name"}


def _named(
    table: Mapping[str, type[BaseModel]], kind: str, definitions: Schema, extra: Mapping[str, Schema] | None = None
) -> Schema:
    mappings = [
        _mapping("name", name, (model.__doc__ or "").split("\n")[0], model, f"{kind}.{name}", definitions, extra)
        for name, model in table.items()
    ]
    return _either("name", mappings, optional=True)


def _either(key: str, mappings: list[Schema], *, optional: bool = False) -> Schema:
    """One of `mappings`, or its name alone; `optional`: the name may be left out, where there is a default for it."""
    names = sorted({mapping["properties"][key]["const"] for mapping in mappings})
    for mapping in mappings:
        if optional:
            mapping["required"].remove(key)
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
