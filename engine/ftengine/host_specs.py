"""What a spec must satisfy, and how the names in it become the full names that configs use."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import PydanticUserError

from ftengine.errors import name_list, unknown
from ftengine.plugin import (
    SPEC_HOOKS,
    BackboneSpec,
    DatasetOptions,
    DatasetSpec,
    Defaults,
    HeadSpec,
    LossSpec,
    MetricSpec,
    Options,
    Spec,
    StrategySpec,
    TaskSpec,
)
from ftengine.specs import STRATEGY_SECTIONS
from ftengine.vocabulary import FITS, INPUTS

__all__ = ["KINDS", "TASK_KINDS", "Component", "full_components", "spec_problems"]

KINDS = tuple(spec.kind for spec in SPEC_HOOKS.values())
"""Every kind of component, in the order of the hooks."""

TASK_KINDS = ("head", "loss", "metric")
"""The kinds that belong to a task and are looked up within it."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

# Keys that a config's section gives a meaning of its own, beside the component's options.
_RESERVED = {
    "backbone": ("name", "weights"),
    "head": ("name", "weights"),
    "loss": ("name", "weight"),
    "freeze": ("name", "frozen_norm", "warmup_epochs"),
    "dataset": ("name", "format"),
}


@dataclass(frozen=True)
class Component:
    """A registered component.

    `name` is what a config writes: bare for a built-in one, ``<entry point>/<name>`` for a third party's. `task`
    is the full name of its task, for the kinds that have one. `plugin` is the entry point it came from. The names
    of tasks and heads inside `spec` are full as well; ``spec.name`` is the plugin's own.
    """

    name: str
    kind: str
    task: str | None
    plugin: str
    spec: Spec


# --- checks ----------------------------------------------------------------------------------------------------


def spec_problems(hook: str, specs: Iterable[Any]) -> Iterator[str]:
    """All that is wrong with what `hook` returned."""
    expected = SPEC_HOOKS[hook]
    seen: set[tuple[str | None, str]] = set()
    for spec in specs:
        if not isinstance(spec, expected):
            other = next((name for name, kind in SPEC_HOOKS.items() if isinstance(spec, kind)), None)
            got = repr(spec) if other is None else f"the {type(spec).__name__} {spec.name!r}, which {other!r} returns"
            yield f"{hook!r} returned {got}; expected each item to be a {expected.__name__}"
            continue
        place = f"{spec.kind} {spec.name!r}"
        problems = list(_problems(spec))
        yield from (f"{place}: {problem}" for problem in problems)
        if problems:
            continue
        key = (getattr(spec, "task", None), spec.name)
        if key in seen:
            yield f"{place} is registered twice" + (f" for the task {key[0]!r}" if key[0] else "")
        seen.add(key)


def _problems(spec: Spec) -> Iterator[str]:
    if not isinstance(spec.name, str) or not _NAME.fullmatch(spec.name):
        yield "a name must be lower-case letters, digits and underscores, beginning with a letter"
    if isinstance(spec, StrategySpec):
        yield from _strategy_problems(spec)
    elif not isinstance(spec.factory, str) or not _FACTORY.fullmatch(spec.factory):
        yield f"factory must be a string 'module:callable', not {spec.factory!r}"
    if not isinstance(spec.summary, str) or not spec.summary.strip() or len(spec.summary.splitlines()) != 1:
        yield f"summary must be one line of text, not {spec.summary!r}"
    yield from _names("requires", spec.requires)
    if _is_names(spec.requires):
        for name in spec.requires:
            if not _DISTRIBUTION.fullmatch(name):
                yield f"requires must hold names of distributions, without versions, not {name!r}"
    yield from _option_problems(spec)
    if isinstance(spec, TaskSpec):
        yield from _task_problems(spec)
    elif isinstance(spec, BackboneSpec):
        yield from _names("levels", spec.levels, empty=False)
        yield from _names("weights", spec.weights)
        known = spec.default_weights is None or spec.open_weights or spec.default_weights in spec.weights
        if not known:
            yield f"default_weights {spec.default_weights!r} is not among its weights: {name_list(spec.weights)}"
    elif isinstance(spec, HeadSpec | LossSpec | MetricSpec):
        if not isinstance(spec.task, str) or not spec.task:
            yield f"task must be the name of a task, not {spec.task!r}"
        for key in ("levels", "heads", "fields", "weights", "others"):
            yield from _names(key, getattr(spec, key, ()))
    elif isinstance(spec, DatasetSpec):
        yield from _names("fields", spec.fields, empty=False)
    if isinstance(spec, BackboneSpec | HeadSpec) and spec.input not in INPUTS:
        yield f"input must be {' or '.join(map(repr, INPUTS))}, not {spec.input!r}"
    if isinstance(spec, MetricSpec):
        if not isinstance(spec.primary, str) or not spec.primary:
            yield f"primary must be a key of compute(), not {spec.primary!r}"
        if spec.mode not in ("max", "min"):
            yield f"mode must be 'max' or 'min', not {spec.mode!r}"


def _is_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)


def _names(key: str, value: Any, empty: bool = True) -> Iterator[str]:
    if not _is_names(value):
        yield f"{key} must be a tuple of strings, not {value!r}"
    elif not value and not empty:
        yield f"{key} is empty"
    elif len(set(value)) < len(value):
        yield f"{key} names something twice: {', '.join(value)}"


def _option_problems(spec: Spec) -> Iterator[str]:
    base = DatasetOptions if isinstance(spec, DatasetSpec) else Options
    options = spec.options
    if not isinstance(options, type) or not issubclass(options, base):
        yield f"options must be a subclass of {base.__name__}, not {options!r}"
        return
    if options.model_config.get("extra") != "forbid":
        yield f"{options.__name__} must keep extra='forbid', so that a misspelt option is reported"
    for name in options.model_fields:
        if callable(vars(base).get(name)):
            yield f"{options.__name__} has an option {name!r}, which hides the method {base.__name__}.{name}()"
    reserved = _RESERVED.get(spec.kind, ("name",))
    for field, info in options.model_fields.items():
        for key in {field, info.alias, info.validation_alias}.intersection(reserved):
            yield f"{options.__name__} has an option {key!r}, a key that a config's {spec.kind} section uses itself"
    cause = _schema_problem(options)
    if cause is not None:
        yield f"{options.__name__} has no JSON Schema, from which listings and editors know its options: {cause}"


@functools.cache
def _schema_problem(options: type[Options]) -> str | None:
    try:
        options.model_json_schema()
    except PydanticUserError as error:
        return " ".join(error.message.split())
    return None


def _strategy_problems(spec: StrategySpec) -> Iterator[str]:
    if spec.factory or spec.options is not Options:
        yield "a strategy is its settings: it has neither factory nor options"
    if not isinstance(spec.settings, Mapping):
        yield f"settings must be a mapping of sections of a config, not {spec.settings!r}"
        return
    for section, value in spec.settings.items():
        if section not in STRATEGY_SECTIONS:
            yield f"settings: {unknown('section', str(section), STRATEGY_SECTIONS)}"
        elif section in ("mix", "train"):
            if not isinstance(value, Mapping):
                yield f"settings: {section} must be a mapping, not {value!r}"
        elif section == "regularizers":
            items = [value] if isinstance(value, str | Mapping) else value
            if not isinstance(items, list | tuple) or not all(_is_named(item, needed=True) for item in items):
                yield f"settings: regularizers must be names, or mappings with `name`, not {value!r}"
        elif not _is_named(value, needed=section in ("freeze", "adapter")):
            yield f"settings: {section} must be a name, or a mapping with `name`, not {value!r}"


def _is_named(value: Any, *, needed: bool) -> bool:
    """Whether `value` is a component's name, or a mapping with it; `needed`: not only its options."""
    if isinstance(value, Mapping):
        return isinstance(value.get("name", None if needed else ""), str)
    return isinstance(value, str)


def _task_problems(spec: TaskSpec) -> Iterator[str]:
    if not isinstance(spec.image_size, int) or spec.image_size < 1:
        yield f"image_size must be a number of pixels, not {spec.image_size!r}"
    if spec.image_fit not in FITS:
        yield f"image_fit must be one of {', '.join(FITS)}, not {spec.image_fit!r}"
    if not spec.targets:
        yield "targets is empty, so that no dataset can feed it"
    for field, defaults in spec.targets.items():
        if not isinstance(field, str) or not isinstance(defaults, Defaults):
            yield f"targets must map the name of a target field to Defaults, not {field!r} to {defaults!r}"
        elif not _is_names(defaults.metrics):
            yield f"targets[{field!r}]: metrics must be a tuple of strings, not {defaults.metrics!r}"


# --- full names ------------------------------------------------------------------------------------------------


def full_components(plugins: Iterable[tuple[str, bool, list[Spec]]]) -> tuple[Component, ...]:
    """The components of (entry point, built-in, specs), each under its full name.

    A bare name inside a third party's spec means the built-in component of that name, else the plugin's own.
    """
    loaded = list(plugins)
    builtin = {_key(spec) for _, is_builtin, specs in loaded if is_builtin for spec in specs}
    components = []
    for plugin, is_builtin, specs in loaded:
        own = {_key(spec) for spec in specs}

        def full(kind: str, task: str | None, name: str, plugin: str = plugin, own: Any = own) -> str:
            if "/" in name or (kind, task, name) in builtin:
                return name
            bare_task = task.removeprefix(f"{plugin}/") if task else None
            is_own = bool({(kind, task, name), (kind, bare_task, name)} & own)
            return f"{plugin}/{name}" if is_own else name

        for spec in specs:
            name = spec.name if is_builtin else f"{plugin}/{spec.name}"
            resolved = spec if is_builtin else _resolved(spec, name, full)
            components.append(Component(name, spec.kind, getattr(resolved, "task", None), plugin, resolved))
    return tuple(components)


def _key(spec: Spec) -> tuple[str, str | None, str]:
    return spec.kind, getattr(spec, "task", None), spec.name


def _resolved(spec: Spec, name: str, full: Callable[[str, str | None, str], str]) -> Spec:
    if isinstance(spec, TaskSpec):
        targets = {
            field: Defaults(
                head=full("head", name, defaults.head),
                loss=full("loss", name, defaults.loss),
                metrics=tuple(full("metric", name, metric) for metric in defaults.metrics),
            )
            for field, defaults in spec.targets.items()
        }
        return replace(spec, targets=targets)
    if isinstance(spec, HeadSpec | LossSpec | MetricSpec):
        task = full("task", None, spec.task)
        if isinstance(spec, LossSpec):
            return replace(spec, task=task, heads=tuple(full("head", task, head) for head in spec.heads))
        if isinstance(spec, HeadSpec) and spec.loss:
            return replace(spec, task=task, loss=full("loss", task, spec.loss))
        return replace(spec, task=task)
    if isinstance(spec, StrategySpec):
        return replace(spec, settings={key: _full_names(key, value, full) for key, value in spec.settings.items()})
    return spec


def _full_names(section: str, value: Any, full: Callable[[str, str | None, str], str]) -> Any:
    """A strategy's section with the full names of the components in it."""
    kind = {"freeze": "freeze", "adapter": "adapter", "regularizers": "regularizer"}.get(section)
    if kind is None:
        return value
    if isinstance(value, str):
        return full(kind, None, value)
    if isinstance(value, Mapping):
        return {**value, "name": full(kind, None, value["name"])}
    return [_full_names(section, item, full) for item in value]
