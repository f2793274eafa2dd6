"""The table of what the built-in plugins offer."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ftengine.host import KINDS, Component, Host
from ftengine.host_lookup import plural
from ftengine.optimizers import OPTIMIZERS
from ftengine.plugin import StrategySpec
from ftengine.schedule import SCHEDULES
from reference.markdown import table as markdown_table


def table(_: str) -> str:
    """A row for each kind (and task): the names of its built-in components."""
    tasks = [component.name for component in builtin("task", None)]
    rows = []
    for kind in KINDS:
        for task in [None, *tasks]:
            names = _names(builtin(kind, task))
            if names:
                rows.append((plural(kind) + (f" of {task}" if task else ""), names))
    rows.append(("optimizers", _code(OPTIMIZERS)))
    rows.append(("schedules", _code(SCHEDULES)))
    return markdown_table(("kind", "names"), rows)


def heads(task: str) -> str:
    """The built-in heads of a task: what they read, the losses that are for them alone, and their published weights."""
    losses = builtin("loss", task)
    own = {head.name: [one.name for one in losses if head.name in one.spec.heads] for head in builtin("head", task)}
    rows = []
    for component in builtin("head", task):
        spec = component.spec
        cells = [f"`{component.name}`", spec.summary, _code(spec.levels)]
        rows.append([*cells, *([_code(own[component.name])] if any(own.values()) else []), _code(spec.weights)])
    titles = ["head", "what it is", "levels it reads", *(["loss"] if any(own.values()) else []), "`weights`"]
    return markdown_table(titles, rows)


def summaries(which: str) -> str:
    """The built-in components of ``KIND TASK``, or of a kind that has no task, with their summaries and options."""
    kind, _, task = which.partition(" ")
    rows = []
    for component in builtin(kind, task or None):
        rows.append((f"`{component.name}`", component.spec.summary, _code(component.spec.options.model_fields)))
    return markdown_table((kind, "what it is", "options"), rows)


def strategies(_: str) -> str:
    """The catalogue: each strategy, linked to its section, what it does, when it is right, and what it sets."""
    rows = []
    for component in builtin("strategy", None):
        spec = component.spec
        assert isinstance(spec, StrategySpec)
        link = f"[`{spec.name}`](#{spec.name})"
        rows.append((link, spec.summary, spec.when, settings(spec) or "nothing"))
    return markdown_table(("strategy", "what it does", "when", "what it sets"), rows)


def settings(spec: StrategySpec) -> str:
    """A strategy's settings as lines of config, without ``freeze: none``, which is what a config says by itself."""
    own = {section: value for section, value in spec.settings.items() if (section, value) != ("freeze", "none")}
    return ", ".join(f"`{key}: {flow(value)}`" for key, value in own.items())


def flow(value: Any) -> str:
    """A value in YAML's flow style on one line, as people write it: ``{name: surgical, block: last}``."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()  # the end mark of a document that is a single word


def _plain(value: Any) -> Any:
    """Mappings and sequences as YAML has them."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def builtin(kind: str, task: str | None) -> list[Component]:
    """The built-in components of a kind, and of a task where the kind belongs to one."""
    return [one for one in _builtin() if (one.kind, one.task) == (kind, task)]


@functools.cache
def _builtin() -> list[Component]:
    host = Host.discover()
    plugins = {record.name for record in host.plugins if record.builtin}
    return [component for component in host.components if component.plugin in plugins]


def _names(components: list[Component]) -> str:
    return _code([component.name for component in components])


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
