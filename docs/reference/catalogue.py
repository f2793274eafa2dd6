"""Every built-in component with what its spec says of it: docs/components.md."""

from __future__ import annotations

import dataclasses
from typing import Any

from ftengine.host import Component
from ftengine.host_lookup import singular
from ftengine.plugin import BackboneSpec, DatasetSpec, Defaults, MetricSpec, Spec
from reference import config
from reference.components import builtin, flow
from reference.markdown import table

KEYS = {"dataset": "data", "metric": "metrics", "regularizer": "regularizers"}
"""What a config calls a kind of component, where it is not the kind's own name."""

NEEDS = "needs the packages"
"""What a component's ``requires`` is called."""


def catalogue(which: str) -> str:
    """Each component of ``KIND TASK``, or of a kind that has no task: summary, example, facts, options."""
    kind, _, task = which.partition(" ")
    return "\n\n".join(_entry(item) for item in builtin(kind, task or None))


def heading(item: Component) -> str:
    """What the entry of a component is called; no two are called the same."""
    return f"{singular(item.kind).capitalize()} `{item.name}`" + (f" of {item.task}" if item.task else "")


def _entry(item: Component) -> str:
    parts = [f"### {heading(item)}", item.spec.summary, _list(_facts(item))]
    if item.spec.options.model_fields:
        parts.append(config.options("/".join(filter(None, (item.kind, item.task, item.name)))))
    return "\n\n".join(parts)


def example(item: Component) -> str | None:
    """The line of a config that names the component; None where it cannot be tried without more."""
    spec = item.spec
    required = [name for name, field in spec.options.model_fields.items() if field.is_required()]
    if not set(required) <= set(spec.example):
        return None
    name = {"format" if item.kind == "dataset" else "name": item.name}
    value: Any = {**name, **spec.example} if spec.example else item.name
    value = [value] if item.kind in ("metric", "regularizer") else value
    return f"{KEYS.get(item.kind, item.kind)}: {flow(value)}"


def _facts(item: Component) -> list[tuple[str, str]]:
    """What the component's kind adds to every spec, where it says something."""
    base = {field.name for field in dataclasses.fields(Spec)} | {"task"}
    line = example(item)
    facts = [("in a config", f"`{line}`")] if line else []
    if isinstance(item.spec, DatasetSpec):
        facts.append(("its files", f"[config.md](config.md#{item.name})"))
    facts.append(("plugin", f"`{item.plugin}`"))
    always = (BackboneSpec, "levels"), (MetricSpec, "mode")
    for field in dataclasses.fields(item.spec):
        value = getattr(item.spec, field.name)
        says = value != _default(field) or any(isinstance(item.spec, a) and field.name == b for a, b in always)
        if field.name not in base and says:
            facts.append((field.name.replace("_", " "), _words(value)))
    if item.spec.requires:
        facts.append((NEEDS, _words(item.spec.requires)))
    return facts


def _list(facts: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _words(value: Any) -> str:
    if isinstance(value, Defaults):
        return f"head {_words(value.head)}, loss {_words(value.loss)}, metrics {_words(value.metrics)}"
    if isinstance(value, dict):
        return "; ".join(f"`{key}` with {_words(part)}" for key, part in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(_words, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"`{value}`"


def backbones(_: str) -> str:
    """The backbones, a family together: those of one plugin with the same summary, levels and options."""
    families: dict[tuple[object, ...], list[Component]] = {}
    for item in builtin("backbone", None):
        assert isinstance(item.spec, BackboneSpec)
        families.setdefault((item.plugin, _family(item), item.spec.levels, item.spec.options), []).append(item)
    return "\n\n".join(map(_family_entry, families.values()))


def _family(item: Component) -> str:
    """A backbone's summary without its name, which is what a family has in common."""
    summary = item.spec.summary.removeprefix(f"{item.name}: ")
    return f"{summary[0].upper()}{summary[1:]}."


def _family_entry(items: list[Component]) -> str:
    first = items[0]
    names = " to ".join(dict.fromkeys(f"`{item.name}`" for item in (first, items[-1])))
    own = [(name, value) for name, value in _facts(first) if name not in ("weights", "default weights", "open weights")]
    parts = [
        f"### Backbone{'s' * (len(items) > 1)} {names}",
        _family(first),
        _list(own),
        table(("name", "`weights`, the default first"), [(f"`{item.name}`", _weights(item.spec)) for item in items]),
    ]
    if first.spec.options.model_fields:
        parts.append(config.options(f"backbone/{first.name}"))
    return "\n\n".join(parts)


def _weights(spec: Spec) -> str:
    assert isinstance(spec, BackboneSpec)
    if spec.open_weights:
        return "those of its library, by name"
    return _words(tuple(sorted(spec.weights, key=lambda name: name != spec.default_weights)))


def strategies(_: str) -> str:
    """The strategies, each with a link to the page that describes them."""
    rows = [(f"[`{one.name}`](strategies.md#{one.name})", one.spec.summary) for one in builtin("strategy", None)]
    return table(("strategy", "what it does"), rows)
