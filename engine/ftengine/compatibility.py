"""Whether the parts of a run fit each other: data and task, head and backbone, loss and metrics and target."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ftengine.document import KeyPath
from ftengine.errors import name_list, unknown
from ftengine.host import Host
from ftengine.plan import Monitor, Part, TaskPlan
from ftengine.plugin import BackboneSpec, DatasetOptions, DatasetSpec, Defaults, HeadSpec, LossSpec, MetricSpec

Report = Callable[[KeyPath, str], None]
"""Takes a place in the config and what is wrong there."""


def target_field(host: Host, task: Part, data: Part | None, report: Report) -> tuple[str, Defaults]:
    """The first field that the task can learn from and the dataset provides."""
    targets: Mapping[str, Defaults] = task.spec.targets
    first = next(iter(targets.items()))
    if data is None:
        return first
    spec: DatasetSpec = data.spec
    assert isinstance(data.options, DatasetOptions)
    provided = data.options.target_fields()
    provided = frozenset(spec.fields) if provided is None else provided
    for name, defaults in targets.items():
        if name in provided:
            return name, defaults
    needs = " or ".join(f"`{name}`" for name in targets)
    able = any(name in spec.fields for name in targets)
    has = f"it provides {name_list(provided)}" + (" with these options" if able else "")
    message = f"{data.component.name} cannot feed {task.component.name}, which needs {needs}; {has}"
    if not able:
        feeding = [
            component.name
            for component in host.components
            if isinstance(component.spec, DatasetSpec) and set(component.spec.fields) & set(targets)
        ]
        message += f"; formats that do: {name_list(feeding)}"
    report(data.path, message)
    return first


def check_fit(
    host: Host,
    head: Part | None,
    loss: Part | None,
    metrics: list[Part | None],
    target: str,
    backbone: Part | None,
    report: Report,
) -> None:
    """Check the parts of a task against each other."""
    if head and backbone:
        head_spec: HeadSpec = head.spec
        offered: BackboneSpec = backbone.spec
        lacking = [level for level in head_spec.levels if level not in offered.levels]
        if lacking:
            message = f"needs the levels {name_list(head_spec.levels)}, but {backbone.component.name} has no "
            report(head.path, message + name_list(lacking))
    for part in [loss, *metrics]:
        if part is None:
            continue
        spec: LossSpec | MetricSpec = part.spec
        if spec.fields and target not in spec.fields:
            alternatives = [
                component.name
                for component in host.components
                if isinstance(component.spec, type(spec))
                and component.task == part.component.task
                and (not component.spec.fields or target in component.spec.fields)
            ]
            message = (
                f"{spec.name} learns from {name_list(spec.fields)}"
                if spec.kind == "loss"
                else (f"{spec.name} measures {name_list(spec.fields)}")
            )
            report(part.path, f"{message}, but the data give `{target}`; fitting: {name_list(alternatives)}")
        if isinstance(spec, LossSpec) and head and spec.heads and head.component.name not in spec.heads:
            report(part.path, f"{spec.name} is for the heads {name_list(spec.heads)}, not {head.component.name}")


def pick_monitor(wanted: str | None, tasks: Mapping[str, TaskPlan], joint: bool, report: Report) -> Monitor:
    """``loss``, ``accuracy`` or, in a joint run, ``<task>/accuracy``: the name in the config, or the logged one."""
    if wanted == "loss":
        return Monitor(None, None, "min", "loss")
    choices: dict[str, Monitor] = {}
    for name, task in tasks.items():
        for index, metric in enumerate(task.metrics):
            prefix = f"{name}/" if joint else ""
            monitor = Monitor(name, index, metric.spec.mode, prefix + metric.primary)
            choices.setdefault(prefix + metric.component.name, monitor)
            choices.setdefault(monitor.name, monitor)
    if wanted is None:
        return next(iter(choices.values()))
    if wanted not in choices:
        report(("train", "monitor"), unknown("metric", wanted, ["loss", *choices]))
        return Monitor(None, None, "min", "loss")
    return choices[wanted]
