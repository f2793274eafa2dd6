"""A document resolved into a plan: every check of a config that needs no torch.

All mistakes are collected and raised together. What comes out holds every value of the run; building it cannot
meet an unknown name or option any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ftengine import augment
from ftengine.compatibility import (
    check_averages,
    check_fit,
    check_mix,
    check_windows,
    image_config,
    pick_monitor,
    pick_weights,
    target_field,
)
from ftengine.config import Config, TaskConfig, parse, parse_rest
from ftengine.config_refs import DataRef, HeadRef, LossRef, Ref
from ftengine.document import Document, KeyPath, Origin, below, override, read
from ftengine.errors import ConfigError, FtengineError, Problem, name_list, nearest, unknown
from ftengine.host import Host
from ftengine.optimizers import OPTIMIZERS
from ftengine.plan import Part, Plan, TaskPlan
from ftengine.plugin import DatasetOptions
from ftengine.schedule import SCHEDULES
from ftengine.strategy import apply_strategy
from ftengine.validation import validation_problems
from ftengine.vocabulary import SPATIAL_FIELDS


def load(file: Path, assignments: tuple[str, ...] = (), task: str | None = None) -> Plan:
    """Read, override and resolve a config file; `task` is the command line's. Raises ConfigError with all mistakes."""
    document = read(file)
    override(document, assignments)
    apply_task(document, task)
    return resolve(document)


def apply_task(document: Document, task: str | None) -> None:
    """Write the command line's `task` where the file leaves it out; raises ConfigError where they disagree."""
    if task is None:
        return
    stated = document.data.get("task")
    name = stated.get("name") if isinstance(stated, dict) else stated
    if "tasks" in document.data:
        tasks = document.data["tasks"]
        message = f"--task {task} names one task, but the file has several under tasks: {name_list(tasks or ())}"
        raise ConfigError([document.problem(("tasks",), message)])
    if name is not None and name != task:
        raise ConfigError([document.problem(("task",), f"the file says {name!r}, but --task says {task!r}")])
    if name is None:
        document.put(("task",), task, Origin("--task"))


def resolve(document: Document, *, trained: bool = False) -> Plan:
    """Resolve a document against the installed plugins; raises ConfigError with all mistakes.

    `trained`: it is a run's own. The weights that the run started from shaped its network, and are named in the plan,
    but need not be there any more: its checkpoints hold its weights.
    """
    mistaken = apply_strategy(document)
    config, problems = parse(document)
    problems = mistaken + problems
    if config is None:
        config = parse_rest(document, problems)
    if config is None:
        raise ConfigError(_ordered(problems))
    host = Host.discover(disable=config.plugins.disable)
    resolver = _Resolver(document, config, host, problems, trained)
    plan = resolver.plan()
    if plan is None:
        raise ConfigError(_ordered(resolver.problems))
    return plan


def _ordered(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0, problem.path))


Model = TypeVar("Model", bound=BaseModel)


class _Resolver:
    """Collects problems while it resolves; a part that failed is None, and what depends on it is left out."""

    def __init__(
        self,
        document: Document,
        config: Config,
        host: Host,
        problems: list[Problem],
        trained: bool,
    ) -> None:
        self.document = document
        self.config = config
        self.host = host
        self.problems = list(problems)
        self.trained = trained

    def problem(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def plan(self) -> Plan | None:
        config = self.config
        for message in self.host.require(config.plugins.require):
            self.problem(("plugins", "require"), message)
        backbone = weights = None
        if config.backbone is None:
            self.problem(("backbone",), "required, but not given")
        else:
            backbone = self.part("backbone", config.backbone, ("backbone",))
        freeze = self.part("freeze", config.freeze, ("freeze",))
        adapter = None if config.adapter is None else self.part("adapter", config.adapter, ("adapter",))
        regularizers = [
            self.part("regularizer", ref, ("regularizers", index)) for index, ref in enumerate(config.regularizers)
        ]
        optimizer = self.named(config.optimizer, OPTIMIZERS, "optimizer")
        given = [(part.data(), part) for part in regularizers if part]
        for index, (data, part) in enumerate(given):
            if data in [other for other, _ in given[:index]]:
                self.problem(part.path, f"{part.component.name} is given twice")
        schedule = self.named(config.schedule, SCHEDULES, "schedule")
        streams: dict[str, Part] = {}
        tasks = self.tasks(streams, backbone)
        found: dict[tuple[str, str], None] = {}  # each stream is augmented by itself; what ails several is said once
        for stream in [*streams] or [""]:
            fields = frozenset(task.field for task in tasks.values() if task.stream == stream) & SPATIAL_FIELDS
            found |= dict.fromkeys(augment.check(list(config.augment), fields))
        for place, message in found:
            self.problem(below(("augment",), place), message)
        if config.backbone is not None:
            weights = pick_weights(
                backbone, config.backbone.weights, tasks, self.document, self.problem, trained=self.trained
            )
        if schedule is not None:
            for key, message in schedule.problems(config.train):
                self.problem(("schedule", key), message)
        check_averages(config.train, config.adapter, self.problem)
        check_mix(config, list(tasks.values()), self.problem)
        monitor = None
        if not self.problems:
            config = config.model_copy(update={"image": image_config(config.image, list(tasks.values()), self.problem)})
            check_windows(config.image.window, list(tasks.values()), self.problem)
            monitor = pick_monitor(config.train.monitor, tasks, config.tasks is not None, self.problem)
        if self.problems:
            return None
        assert backbone
        assert weights
        assert freeze
        assert optimizer
        assert schedule
        assert monitor
        return Plan(
            config=config,
            host=self.host,
            tasks=tasks,
            streams=streams,
            backbone=backbone,
            weights=weights,
            freeze=freeze,
            adapter=adapter,
            regularizers=tuple(part for part in regularizers if part),
            optimizer=optimizer,
            schedule=schedule,
            monitor=monitor,
            document=self.document,
            joint=config.tasks is not None,
            strategy=config.strategy or (config.provenance or {}).get("strategy"),
        )

    # --- parts -------------------------------------------------------------------------------------------------

    def part(self, kind: str, ref: Ref | DataRef, path: KeyPath, task: str | None = None) -> Part | None:
        name = ref.format if isinstance(ref, DataRef) else ref.name
        try:
            component = self.host.find(kind, name, task)
        except FtengineError as error:
            self.problem(self.document.name_path(path, "format" if isinstance(ref, DataRef) else "name"), str(error))
            return None
        options = self.options(component.spec.options, ref, path)
        return None if options is None else Part(component, options, path)

    def options(self, model: type[Model], ref: Ref | DataRef, path: KeyPath) -> Model | None:
        try:
            return model.model_validate(ref.options)
        except ValidationError as error:
            self.problems += validation_problems(error, model, path, self.document, also=type(ref).model_fields)
            return None

    def named(self, ref: Ref, table: Mapping[str, type[Model]], what: str) -> Model | None:
        name = ref.name
        if name not in table and name.lower() in table:
            name = name.lower()
        if name not in table:
            self.problem(self.document.name_path((what,), "name"), unknown(what, ref.name, table))
            return None
        return self.options(table[name], ref, (what,))

    # --- tasks -------------------------------------------------------------------------------------------------

    def tasks(self, streams: dict[str, Part], backbone: Part | None) -> dict[str, TaskPlan]:
        config = self.config
        if config.tasks is not None:
            for key in ("task", "head", "loss", "metrics"):
                if getattr(config, key) is not None:
                    self.problem((key,), "belongs to a run with one task; with `tasks`, give it to each of them")
            if not config.tasks:
                self.problem(("tasks",), "names no task")
            entries: list[tuple[str, TaskConfig, KeyPath]] = [
                (name, entry, ("tasks", name)) for name, entry in config.tasks.items()
            ]
        elif config.task is None:
            near = nearest("task", self.document.data)
            hint = f"; is {near!r} meant?" if near and near != "task" else ""
            names = name_list(self.host.names("task"))
            self.problem((), f"no task: give `task` (or `tasks`, or --task){hint}; tasks: {names}")
            return {}
        else:
            entry = TaskConfig(task=config.task, head=config.head, loss=config.loss, metrics=config.metrics)
            entries = [(config.task.name.rpartition("/")[2], entry, ())]
        plans = {}
        for name, entry, path in entries:
            if not name.isidentifier():
                self.problem(path, f"a task's name must be letters, digits and underscores, found {name!r}")
                continue
            plan = self.task(name, entry, path, streams, backbone)
            if plan is not None:
                plans[name] = plan
        return plans

    def task(
        self, name: str, entry: TaskConfig, path: KeyPath, streams: dict[str, Part], backbone: Part | None
    ) -> TaskPlan | None:
        data_ref, data_path = (entry.data, (*path, "data")) if entry.data else (self.config.data, ("data",))
        if data_ref is None:
            where = " here or at the top level" if path else ""
            self.problem(
                (*path, "data"), f"required, but not given{where}; formats: {name_list(self.host.names('dataset'))}"
            )
        stream, data = self.stream(streams, data_ref, data_path, name if path else "data") if data_ref else ("", None)
        task = self.part("task", entry.task, (*path, "task"))
        if task is None:
            return None
        target, defaults = target_field(self.host, task, data, self.problem)
        kind = task.component.name
        head_ref = entry.head or HeadRef(name=defaults.head)
        head = self.part("head", head_ref, (*path, "head"), kind)
        if head is not None and head_ref.weights not in (None, *head.spec.weights):
            known = f"weights of {head.component.name}"
            self.problem((*path, "head", "weights"), unknown(known, str(head_ref.weights), head.spec.weights))
        default_loss = (head.spec.loss if head else None) or defaults.loss
        loss_refs = entry.loss or (LossRef(name=default_loss),)
        losses = [self.part("loss", ref, (*path, "loss", i), kind) for i, ref in enumerate(loss_refs)]
        refs = [Ref(name=metric) for metric in defaults.metrics] if entry.metrics is None else entry.metrics
        metrics = [self.part("metric", ref, (*path, "metrics", i), kind) for i, ref in enumerate(refs)]
        if not refs:
            self.problem((*path, "metrics"), "at least one metric is needed")
        check_fit(self.host, head, losses, metrics, target, backbone, data, self.problem)
        if not (data and head and all(losses) and all(metrics)):
            return None
        return TaskPlan(
            name,
            task,
            head,
            head_ref.weights,
            tuple((loss, ref.weight) for loss, ref in zip(losses, loss_refs, strict=True) if loss),
            tuple(metric for metric in metrics if metric),
            target,
            entry.weight,
            stream,
        )

    def stream(self, streams: dict[str, Part], ref: DataRef, path: KeyPath, name: str) -> tuple[str, Part | None]:
        """The stream with this data: tasks with the same data share one, called `name` as its first task.

        The order of samples follows from the name, so this must not depend on where the config says `data`.
        """
        part = self.part("dataset", ref, path)
        if part is None:
            return "", None
        assert isinstance(part.options, DatasetOptions)
        root = part.options.root.expanduser().absolute()
        part = replace(part, options=part.options.model_copy(update={"root": root}))
        for other, known in streams.items():
            if known.data() == part.data():
                return other, known
        streams[name] = part
        return name, part
