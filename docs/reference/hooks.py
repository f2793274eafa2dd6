"""The hooks, the specs and the contracts, as the code has them."""

from __future__ import annotations

import dataclasses
import inspect
import re

from ftengine import plugin, protocols
from ftengine.plugin import SPEC_HOOKS, Hooks, Spec
from ftengine.vocabulary import TARGET_FIELDS
from reference.markdown import docstring, prose, table

CONTRACTS = {
    "task": (protocols.TaskContext, protocols.Task),
    "backbone": (protocols.BackboneContext, protocols.Backbone),
    "head": (protocols.HeadContext, protocols.Head),
    "loss": (protocols.LossContext, protocols.Loss),
    "metric": (protocols.MetricContext, protocols.Metric),
    "freeze": (protocols.FreezeContext, protocols.FreezePolicy),
    "regularizer": (protocols.RegularizerContext, protocols.Regularizer),
    "adapter": (protocols.AdapterContext, protocols.Adapter),
    "dataset": (protocols.DatasetContext, protocols.Dataset),
}
"""For each kind of component: what its factory is given beside the options, and what it returns."""


PLACES = (
    protocols.Batch,
    protocols.Frame,
    protocols.Progress,
    protocols.LabelMap,
    protocols.Companions,
    protocols.Window,
    protocols.PublishedModel,
)
"""What the contracts hand on besides tensors."""


def hooks(which: str) -> str:
    """The hooks that register (`which` is ``register``), or the observers (``observe``)."""
    parts = []
    for name, function in vars(Hooks).items():
        if not name.startswith("_") and (name in SPEC_HOOKS) == (which == "register"):
            parts.append(f"### `{name}`\n\n```python\n{signature(name, function)}\n```\n\n{docstring(function)}")
    return "\n\n".join(parts)


def signature(name: str, function: object) -> str:
    """As an implementation is written: a function of a module, without self."""
    full = inspect.signature(function)  # type: ignore[arg-type]
    own = [parameter for key, parameter in full.parameters.items() if key != "self"]
    return f"@hookimpl\ndef {name}{full.replace(parameters=own)}: ...".replace("'", "")


def specs(_: str) -> str:
    """Every spec with its fields; those of the base class once, at its own place."""
    models = [Spec, *SPEC_HOOKS.values(), plugin.Defaults, plugin.RunInfo]
    inherited = {field.name for field in dataclasses.fields(Spec)}
    parts = []
    for model in models:
        hidden = inherited if issubclass(model, Spec) and model is not Spec else set()
        rows = [
            (f"`{field.name}`", f"`{field.type}`", _default(field))
            for field in dataclasses.fields(model)
            if field.name not in hidden or field.name in vars(model).get("__annotations__", {})
        ]
        fields = table(("field", "type", "default"), rows) if rows else "It has the fields of `Spec` only."
        parts.append(f"### `{model.__name__}`\n\n{docstring(model)}\n\n{fields}")
    return "\n\n".join(parts)


def contracts(_: str) -> str:
    """What each kind's factory receives and returns."""
    parts = []
    for kind, (context, contract) in CONTRACTS.items():
        fields = ", ".join(f"{field.name}: {field.type}" for field in dataclasses.fields(context))
        parts.append(
            f"### {kind}\n\n`{context.__name__}({fields})`: {prose(inspect.getdoc(context) or '')}\n\n"
            f"`{contract.__name__}`: {docstring(contract)}\n\n"
            + table(("method", "", "what it does"), _methods(contract))
        )
    return "\n\n".join(parts)


def places(_: str) -> str:
    """The small classes that the contracts hand on, with their fields and methods."""
    parts = []
    for model in PLACES:
        rows = [(f"`{one.name}`", f"`{one.type}`", _default(one)) for one in dataclasses.fields(model)]
        parts.append(f"### `{model.__name__}`\n\n{docstring(model)}\n\n{table(('field', 'type', 'default'), rows)}")
        methods = [(call, about) for call, _, about in _methods(model)]
        parts += [table(("method", "what it returns"), methods)] if methods else []
    return "\n\n".join(parts)


def fields(_: str) -> str:
    """The vocabulary of target fields."""
    rows = [(f"`{name}`", re.sub(r"names\['\w+'\]", r"`\g<0>`", meaning)) for name, meaning in TARGET_FIELDS.items()]
    return table(("field", "what a dataset's `target` has under it"), [(name, prose(text)) for name, text in rows])


def _methods(contract: type) -> list[tuple[str, str, str]]:
    """A class's own public methods and properties: how they are called, whether they must be written, their purpose."""
    rows = []
    for name, member in vars(contract).items():
        if name.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property | classmethod)):
            continue
        function = getattr(contract, name)
        call = name if isinstance(member, property) else f"{name}({', '.join(_parameters(function))})"
        need = "must be written" if getattr(member, "__isabstractmethod__", False) else "may be overridden"
        own = inspect.cleandoc(function.__doc__ or "see above").split("\n\n")[0]
        rows.append((f"`{call}`", need, " ".join(prose(own).split())))
    return rows


def _parameters(function: object) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]  # type: ignore[arg-type]


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
        return f"`{value.__name__ if isinstance(value, type) else repr(value)}`"
    return "required" if field.default_factory is dataclasses.MISSING else f"`{field.default_factory()!r}`"
