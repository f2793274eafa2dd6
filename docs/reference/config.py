"""Tables of the config's keys, made from its models."""

from __future__ import annotations

import inspect
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

import ftengine.config
import ftengine.config_faults
import ftengine.config_refs
import ftengine.config_train
from ftengine.cli_options import option_rows
from ftengine.config import BackboneRef, DataRef, FreezeRef, HeadRef, Losses, OptimizerRef, Ref, Section
from ftengine.host import Host
from ftengine.optimizers import OPTIMIZERS
from ftengine.plugin import DatasetOptions, Options
from ftengine.schedule import SCHEDULES, Schedule
from reference.markdown import plain, prose, table

ANCHORS = {
    "Weights": "weights",
    "ImageConfig": "image",
    "TaskConfig": "tasks",
    "MixConfig": "mix",
    "LrRule": "rules",
    "EmaConfig": "ema",
    "SwaConfig": "swa",
    "WiseFtConfig": "wise-ft",
    "EarlyStopping": "early-stopping",
    "NonFiniteConfig": "on-non-finite",
    "BadSampleConfig": "on-bad-sample",
    "TrainConfig": "train",
    "CheckpointConfig": "checkpoint",
    "PluginsConfig": "plugins",
}
"""Where docs/config.md describes each section."""

PLACES: dict[type[Ref], str] = {
    BackboneRef: "[`weights`](#weights)",
    HeadRef: "[`weights`](#weights-of-a-head)",
    FreezeRef: "[keys of its own](#freeze)",
    OptimizerRef: "[rates by place](#rates-by-place)",
}
"""What the config has beside a component and its options, and where docs/config.md describes it."""

EQUAL_PARTS = re.compile(r"\[(?P<one>[^\[\]]+?)(?:, (?P=one))+\]")
"""A list of a fixed length whose entries are all of one type."""


def sections() -> dict[str, type[Section]]:
    """Every part of the config that has a fixed set of keys, by its class's name."""
    modules = (ftengine.config, ftengine.config_refs, ftengine.config_train)
    models = [model for module in modules for model in vars(module).values()]
    return {
        model.__name__: model
        for model in models
        if isinstance(model, type) and issubclass(model, Section) and model is not Section
    }


def section(name: str) -> str:
    """The keys of a section: type, default, meaning."""
    return rows_of(sections()[name])


def references() -> dict[str, type[Ref]]:
    """The ways to name a component that have keys of the engine's own beside it, by class's name."""
    return {model.__name__: model for model in PLACES}


def reference(name: str) -> str:
    """The keys that the engine has beside a component's name and options."""
    model = references()[name]
    kept = {key: (field.annotation, field) for key, field in model.model_fields.items() if key != "name"}
    fields: dict[str, Any] = kept
    return rows_of(create_model(name, __base__=Options, **fields))


def options(name: str) -> str:
    """The options of a component, named ``kind/name`` or ``kind/task/name``; a dataset's without `data`'s."""
    kind, _, rest = name.partition("/")
    task, _, component = rest.rpartition("/")
    model = Host.discover().find(kind, component, task or None).spec.options
    parts = [rows_of(model)]
    for inner, keys in _nested(model).items():
        about = prose((inspect.getdoc(inner) or "").partition("\n")[0]).rstrip(".")
        parts.append(f"{', '.join(f'`{key}`' for key in keys)}: {about}.\n\n{rows_of(inner)}")
    return "\n\n".join(parts)


def data(_: str) -> str:
    """The options that all data formats share."""
    return rows_of(DatasetOptions)


def _nested(model: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """The models of options that are mappings themselves, each with these options' names."""
    found: dict[type[BaseModel], list[str]] = {}
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            found.setdefault(inner, []).append(name)
    return found


def optimizers(_: str) -> str:
    """Every optimizer, with its options and their defaults."""
    rows = [
        (f"`{name}`", ", ".join(f"`{key}` {_default(field)}" for key, field in model.model_fields.items()))
        for name, model in OPTIMIZERS.items()
    ]
    return table(("name", "options and their defaults"), rows)


def schedules(_: str) -> str:
    """Every schedule, with its options, and the options that all of them share."""
    shared = Schedule.model_fields
    rows = []
    for name, model in SCHEDULES.items():
        fields = model.model_fields.items()
        own = {key: field for key, field in fields if key not in shared or field.default != shared[key].default}
        text = "; ".join(f"`{key}` {_default(field)}: {_about(field)}" for key, field in own.items())
        rows.append((f"`{name}`", prose(model.summary), text or "none"))
    common = "; ".join(f"`{key}` {_default(field)}: {_about(field)}" for key, field in shared.items())
    return table(("name", "factor of the learning rate", "own options"), rows) + f"\n\nAll of them take {common}."


def rows_of(model: type[BaseModel]) -> str:
    """A table of the keys of a section, or of a component's options; AssertionError if one is not described."""
    # A copy without the other ways in which a section may be written, which its JSON Schema would begin with.
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in model.model_fields.items()}
    types = {row.name: row.type for row in option_rows(create_model(model.__name__, __base__=Options, **fields))}
    rows = [
        (f"`{name}`", _type(field, types[name]), _default(field), f"{_about(field)}.")
        for name, field in model.model_fields.items()
        if not _of_all_formats(model, name)
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _of_all_formats(model: type[BaseModel], name: str) -> bool:
    """Whether the option `name` of a data format is as in all of them."""
    base = DatasetOptions.model_fields.get(name)
    if base is None or model is DatasetOptions or not issubclass(model, DatasetOptions):
        return False
    return base.description == model.model_fields[name].description


def _about(field: FieldInfo) -> str:
    """What a key means, without a full stop; of one that only holds a section, what the section's docstring says."""
    text = field.description
    if text is None:
        of = field.annotation if isinstance(field.annotation, type) else object
        assert issubclass(of, BaseModel), f"a key or option without a description: {field}"
        text = (of.__doc__ or "").strip().splitlines()[0]
    return plain(prose(text).rstrip("."))


def _type(field: FieldInfo, text: str) -> str:
    if field.annotation == Losses | None:
        return "component, or a [list](#several-losses) of them"
    inner = _models(field.annotation)
    several = "list of " if "tuple[" in str(field.annotation) else ""
    for model in inner:
        if model in PLACES:
            return f"component, with {PLACES[model]}"
        if issubclass(model, DataRef):
            return "component, called by its `format`"
        if issubclass(model, Ref):
            return f"{several}component{'s' if several else ''}"
        if issubclass(model, Section):
            link = f"[{ANCHORS[model.__name__]}](#{ANCHORS[model.__name__]})"
            if model.__name__ == "TaskConfig":
                return f"mapping of a name to [task](#{ANCHORS['TaskConfig']})"
            return several + link
    if text == "any":
        return "depends on the format"
    return EQUAL_PARTS.sub(_counted, text.replace(" | null", ""))


def _counted(match: re.Match[str]) -> str:
    """``[int, int]`` in fewer words."""
    return f"list of {match[0].count(match['one'])} {match['one']}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Ref):
        return f"`{value.name}`"
    if isinstance(value, Section):
        return "its defaults" if value == type(value)() else ""
    if value is None:
        return "none given"
    if value == "":
        return "empty"
    if isinstance(value, float) and len(repr(value)) > 10:
        return f"`{Fraction(value).limit_denominator(100)}`"
    return f"`{value if isinstance(value, str | Path) else json.dumps(value)}`"
