"""A component that is checked, and the small run that it is checked in."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ftengine.document import Document
from ftengine.errors import FtengineError, name_list, unknown
from ftengine.host import Component, Host
from ftengine.host_lookup import LookupProblem, status_text, unregistered, what_is_missing
from ftengine.plan import Part, Plan
from ftengine.resolve import resolve
from ftengine.specs import DatasetSpec, Defaults, LossSpec, MetricSpec, StrategySpec, TaskSpec
from ftengine.testing.checks import NotApplicable
from ftengine.vocabulary import SPATIAL_FIELDS

if TYPE_CHECKING:
    from ftengine.training import Training

Made = TypeVar("Made")

SMALL: dict[str, Any] = {
    "task": "classification",
    "data": {"format": "digits", "limit": 32, "val_fraction": 0.25},
    "image": {"size": 64},
    "backbone": {"name": "resnet18", "weights": "none"},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "schedule": {"name": "constant"},
    "train": {
        "epochs": 2,
        "batch_size": 4,
        "clip_norm": 1.0,  # or a squared error of random weights is infinite after four steps
        "device": "cpu",
        "precision": "fp32",
        "workers": 0,
        "log_every": 1,
    },
}
"""The run in which a component is checked where its author gives no other: six steps an epoch on embedded digits."""

SCENES = {"scenes": {"count": 16, "size": 64, "digits": [1, 3], "seed": 6}}
"""What the data are where boxes, masks or several classes are learnt from: each digit occurs in at least two scenes."""

IN_SCENES = SPATIAL_FIELDS | {"labels"}

FIELDS = ("label", "values", "labels", "boxes", "mask")
"""The target fields that the embedded digits provide."""


@dataclass(eq=False)
class Subject:
    """A component, and `changes` that are laid over the small run that it is checked in.

    `target`: the target field that is learnt there, where the embedded digits have one that suits; `further`: it is not
    the first one that the component is checked with.
    """

    component: Component
    host: Host
    changes: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None
    further: bool = False
    _made: dict[Callable[[Subject], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def kind(self) -> str:
        return self.component.kind

    @property
    def name(self) -> str:
        """Its kind, full name and task, and what else it is checked with: ``loss acme/focal of classification``.

        Where it learns from several fields, the further ones are named: ``metric f1 of classification from labels``.
        """
        return self._whole + (f" from {self.target}" if self.further else "")

    @property
    def _whole(self) -> str:
        task = f" of {self.component.task}" if self.component.task else ""
        return f"{self.kind} {self.component.name}{task}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The ways in which an author may refer to it, the longest first."""
        own = self.component.spec.name
        return (self.name, self._whole, f"{self.kind} {self.component.name}", f"{self.kind} {own}", own)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The small run that uses it. Raises NotApplicable where something that it requires is not installed."""
        self.must_be_complete()
        spec = self.component.spec
        own = self._own({"name": self.component.name, **spec.example})
        return functools.reduce(merged, (own, spec.example_config, self.changes), SMALL)

    @cached_property
    def plan(self) -> Plan:
        """The small run, resolved. Raises ConfigError, such as for options that must be given."""
        return resolve(Document(copy.deepcopy(self.config)))

    @cached_property
    def part(self) -> Part:
        """The component with its options, as the small run has them."""
        plan = self.plan
        tasks = list(plan.tasks.values())
        parts = {
            "task": [task.task for task in tasks],
            "backbone": [plan.backbone],
            "head": [task.head for task in tasks],
            "loss": [loss for task in tasks for loss, _ in task.losses],
            "metric": [metric for task in tasks for metric in task.metrics],
            "freeze": [plan.freeze],
            "regularizer": list(plan.regularizers),
            "adapter": [] if plan.adapter is None else [plan.adapter],
            "dataset": list(plan.streams.values()),
        }[self.kind]
        for part in parts:
            if part.component == self.component:
                return part
        raise FtengineError(f"the run that {self.name} is to be checked in does not use it: {self.config}")

    def must_be_complete(self) -> None:
        """Raises NotApplicable where a distribution that the component requires is not installed."""
        lacking = what_is_missing(self.component)
        if lacking:
            raise NotApplicable(lacking)

    def once(self, make: Callable[[Subject], Made]) -> Made:
        """What `make` makes of this component, made when it is first asked for. Checks share it and do not change it.

        It is kept as long as the subject, so it should be small: predictions rather than a model.
        """
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made

    def training(self, **changes: Any) -> Training:
        """The small run, new and built up to its first step, on the CPU; `changes` are laid over its config.

        Nothing is written. The run has its `model`, its fitted `tasks`, its `streams` and `metrics`.
        """
        from rich.console import Console

        from ftengine.run import assemble
        from ftengine.signals import Signals

        plan = resolve(Document(merged(self.config, changes))) if changes else self.plan
        training = assemble(plan, Path(tempfile.gettempdir()) / "nowhere", Console(quiet=True), Signals(), resume=False)
        training.tracker.silent = True  # nothing is written, not even a step that broke
        return training

    def _own(self, named: dict[str, Any]) -> dict[str, Any]:
        """What the small run must say to use the component, which is `named` with its options."""
        component, spec = self.component, self.component.spec
        match self.kind:
            case "backbone":
                return {"backbone": {**named, "weights": "none"}}
            case "head":
                return {**self._task(component.task), "head": named}
            case "loss":
                spec = cast(LossSpec, spec)
                head = {"head": self._head(component.task, spec.heads[0])} if spec.heads else {}
                return {**self._task(component.task), **head, "loss": named}
            case "metric":
                return {**self._task(component.task), "metrics": [named]}
            case "task":
                return merged(self._task(component.name), {"task": named})
            case "dataset":
                return self._dataset(cast(DatasetSpec, spec))
            case "regularizer":
                return {"regularizers": [named]}
            case "strategy":
                return {"strategy": component.name, **_left_to(cast(StrategySpec, spec))}
            case kind:  # freeze, adapter
                return {kind: named}

    def _task(self, name: str | None) -> dict[str, Any]:
        """The task of that name, on digits or scenes, whichever have the field to learn from."""
        if self.target is None:
            return {"task": {"name": name}}
        data = {"data": SCENES} if self.target in IN_SCENES else {}
        head = self._head(name, _targets(self.host, name)[self.target].head)
        return {"task": {"name": name}, **data, **({"head": head} if len(head) > 1 else {})}

    def _head(self, task: str | None, name: str) -> dict[str, Any]:
        """The head `name` of `task`, with the options that its spec gives to try it with."""
        known = [item.spec.example for item in self.host.select("head", task) if item.name == name]
        return {"name": name, **known[0]} if known else {"name": name}

    def _dataset(self, spec: DatasetSpec) -> dict[str, Any]:
        """The dataset alone, with a task that learns from one of its fields."""
        # A plugin's own task comes first: its datasets may be for that task only.
        for item in sorted(self.host.select("task"), key=lambda item: item.plugin != self.component.plugin):
            targets = cast(TaskSpec, item.spec).targets
            shared = [one for one in targets if one in spec.fields]
            if shared:
                data = {"format": self.component.name, "limit": None, "val_fraction": None, **spec.example}
                head = self._head(item.name, targets[shared[0]].head)
                return {"task": item.name, "data": data, **({"head": head} if len(head) > 1 else {})}
        raise FtengineError(f"no task learns from what it provides: {name_list(spec.fields)}")


def subjects(
    name: str, config: Mapping[str, Any] | None = None, configs: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Subject]:
    """The components of the plugin `name`, or those of the full name `name`, with or without their kind and task.

    `config` is laid over the small run of each of them, `configs`, by component, over that. Raises LookupProblem where
    there is no such plugin or component and where the plugin cannot be used, FtengineError for a key of `configs` that
    is none.
    """
    host = Host.discover()
    made = [one for item in host.components for one in _subjects_of(item, host, _meant_for(item, config or {}))]
    # Without the short ones, which may be those of another plugin's component, too.
    found = [one for one in made if name in (one.component.plugin, one.component.name, *one.keys[:-2])]
    if not found:
        plugin = next((word for word in name.split() if "/" in word), name).partition("/")[0]
        records = [record for record in host.plugins if record.name == plugin]
        for record in records:
            if record.status != "ok":
                raise LookupProblem(status_text(record))
        if records and plugin == name:
            return []  # it has observers only
        names = {record.name for record in host.plugins} | {item.name for item in host.components}
        raise LookupProblem((not records and unregistered(plugin)) or unknown("plugin or component", name, names))
    for key, changes in (configs or {}).items():
        own = [subject for subject in found if key in subject.keys]
        if not own:
            raise FtengineError(
                unknown("component in configs", key, {known for subject in found for known in subject.keys})
            )
        for subject in own:
            subject.changes = merged(subject.changes, changes)
    # Who gives the data says by them what is learnt.
    return [subject for subject in found if not (subject.further and "data" in subject.changes)]


def _subjects_of(component: Component, host: Host, changes: Mapping[str, Any]) -> list[Subject]:
    """The component, once for digits and once for scenes if what it learns from is in both."""
    spec = component.spec
    task = component.name if component.kind == "task" else component.task
    taken = spec.fields if isinstance(spec, LossSpec | MetricSpec) else ()
    usable = [one for one in FIELDS if one in _targets(host, task) and (not taken or one in taken)]
    first = {one in IN_SCENES: one for one in reversed(usable)}
    fields: list[str | None] = [one for one in usable if one in first.values()] or [None]
    return [Subject(component, host, changes, one, one != fields[0]) for one in fields]


def _targets(host: Host, task: str | None) -> Mapping[str, Defaults]:
    """The fields that a task learns from, none if there is no such task."""
    return next((cast(TaskSpec, item.spec).targets for item in host.select("task") if item.name == task), {})


def _left_to(strategy: StrategySpec) -> dict[str, Any]:
    """Takes away of the small run what `strategy` sets: what a config gives itself stays as it is."""
    changes: dict[str, Any] = {}
    for section, value in strategy.settings.items():
        own = SMALL.get(section)
        if isinstance(own, dict):
            named = not isinstance(value, Mapping) or "name" in value
            changes[section] = None if named else dict.fromkeys(value)
    return changes


def _meant_for(component: Component, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` without the section that names another component of this one's kind: it is for all the others."""
    section, key = ("data", "format") if component.kind == "dataset" else (component.kind, "name")
    given = config.get(section)
    name = given.get(key) if isinstance(given, Mapping) else given
    return {one: value for one, value in config.items() if one != section or name in (None, component.name)}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping; None takes a key away.

    A mapping that names another component takes the place of the one below, whose options are not its own.
    """
    result: dict[str, Any] = copy.deepcopy(dict(base))
    for key, value in changes.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            kept = below if isinstance(below, dict) and not _another(below, value) else {}
            result[key] = merged(kept, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _another(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return any(key in above and above[key] != below.get(key) for key in ("name", "format"))
