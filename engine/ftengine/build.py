"""A plan made into modules, datasets and tasks. The only caller of factories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ftengine import seeding
from ftengine.augment import build as build_augmentation
from ftengine.data import Split, Stream
from ftengine.errors import ConfigError, DataError, FtengineError, Problem, name_list
from ftengine.freeze import freeze_context
from ftengine.geometry import padded
from ftengine.holdout import fingerprint, hold_out
from ftengine.host import load_factory
from ftengine.model import Model
from ftengine.order import companions
from ftengine.plan import Part, Plan
from ftengine.plugin import DatasetOptions
from ftengine.probe import PROBE_SIZE, probe
from ftengine.protocols import (
    Adapter,
    AdapterContext,
    Backbone,
    BackboneContext,
    Dataset,
    DatasetContext,
    FreezePolicy,
    Head,
    HeadContext,
    Loss,
    LossContext,
    Metric,
    MetricContext,
    Task,
    TaskContext,
)
from ftengine.quarantine import quarantine
from ftengine.vocabulary import SPATIAL_FIELDS
from ftengine.weights import Coverage, load_published, load_weights
from ftengine.windows import Sliding

Kind = TypeVar("Kind")


def make(part: Part, context: object, kind: type[Kind]) -> Kind:
    """Call a component's factory; what is wrong with the component is said in its name."""
    component = part.component
    factory = load_factory(component)
    try:
        made = factory(part.options, context)
    except FtengineError:
        raise
    except Exception as error:
        message = f"{component.kind} {component.name!r} (plugin {component.plugin}) could not be built"
        raise FtengineError(f"{message}: {type(error).__name__}: {error}") from error
    if not isinstance(made, kind):
        raise FtengineError(
            f"{component.kind} {component.name!r} (plugin {component.plugin}): {component.spec.factory} returned a "
            f"{type(made).__name__}, expected a {kind.__name__}"
        )
    return made


def make_tasks(plan: Plan) -> dict[str, Task]:
    """The tasks, not fitted yet."""
    return {name: make(task.task, TaskContext(task.field), Task) for name, task in plan.tasks.items()}  # type: ignore[type-abstract]


def make_dataset(plan: Plan, stream: str, split: str) -> Dataset:
    """One split of a stream's data, as its options describe it."""
    part = plan.streams[stream]
    tolerant = plan.config.train.on_bad_sample.policy == "quarantine"
    data = make(part, DatasetContext(split, tolerant), Dataset)  # type: ignore[type-abstract]
    if len(data) == 0:
        raise DataError(f"data.{split} of {part.component.name} holds no samples")
    return data


@dataclass
class Splits:
    """A stream's datasets."""

    train: Dataset
    val: Dataset
    test: Dataset | None


def make_splits(plan: Plan, stream: str, tasks: Mapping[str, Task]) -> Splits:
    """The splits of a stream; what is not given is held out of the training split."""
    part = plan.streams[stream]
    options = part.options
    assert isinstance(options, DatasetOptions)
    train = make_dataset(plan, stream, "train")
    _check_fields(plan, stream, train)
    val = make_dataset(plan, stream, "val") if options.val is not None else None
    test = make_dataset(plan, stream, "test") if options.test is not None else None

    def strata() -> Any:
        own = [tasks[name].strata(train) for name, task in plan.tasks.items() if task.stream == stream]
        return next((found for found in own if found is not None), None)

    left = 1.0  # of the training split, after what is held out for testing
    if test is None and options.test_fraction:
        left -= options.test_fraction
        train, test = hold_out(train, options.test_fraction, options.split_seed, strata(), "test")
    if val is None:
        train, val = hold_out(train, options.val_fraction / left, options.split_seed, strata(), "val")
    return Splits(train, val, test)


def _check_fields(plan: Plan, stream: str, data: Dataset) -> None:
    for name, task in plan.tasks.items():
        if task.stream == stream and task.field not in data.names:
            raise DataError(
                f"the data of task {name!r} give no `{task.field}`, though its format "
                f"({plan.streams[stream].component.name}) says so; they give: {', '.join(data.names) or 'nothing'}"
            )


def make_streams(plan: Plan, tasks: Mapping[str, Task]) -> dict[str, Stream]:
    """Datasets of all streams, with every task fitted on its training split and every split checked against it."""
    config = plan.config
    streams = {}
    for name in plan.streams:
        own = tuple(task for task, spec in plan.tasks.items() if spec.stream == name)
        splits = make_splits(plan, name, tasks)
        for task in own:
            tasks[task].fit(splits.train)
        if config.train.batch_size != "auto" and len(splits.train) < config.train.batch:
            raise DataError(
                f"{name}: the training split has {len(splits.train)} samples, fewer than train.batch_size "
                f"{config.train.batch}"
            )

        streams[name] = Stream(
            name,
            own,
            make_split(plan, tasks, splits.train, "train", own, name, training=True),
            make_split(plan, tasks, splits.val, "val", own, name),
            None if splits.test is None else make_split(plan, tasks, splits.test, "test", own, name),
            {which: fingerprint(data) for which, data in vars(splits).items() if data is not None},
        )
    return streams


def make_split(
    plan: Plan,
    tasks: Mapping[str, Task],
    data: Dataset,
    which: str,
    own: tuple[str, ...],
    stream: str = "",
    *,
    training: bool = False,
) -> Split:
    """A dataset with its tasks' encoders, and in training with the augmentations.

    Every target is encoded once, so that a bad one shows before training; masks are not, which datasets check.
    """
    config = plan.config
    encoders = {task: tasks[task].encoder(data, f"the {which} split") for task in own}
    for index in range(len(data)):
        target = data.target(index)
        for task, encode in encoders.items():
            if plan.tasks[task].field != "mask":
                encode(target)
    fields = frozenset(plan.tasks[task].field for task in own)
    augmentation = None
    if training and config.augment:
        augmentation = build_augmentation(list(config.augment), "augment", fields & SPATIAL_FIELDS)
    collators = {task: tasks[task].collate for task in own}
    options = plan.streams[stream].options
    assert isinstance(options, DatasetOptions)
    return Split(
        data,
        encoders,
        collators,
        config.image,
        fields,
        augmentation,
        config.train.seed,
        stream,
        options.clip_frames(),
        training=training,
        quarantine=quarantine(config.train.on_bad_sample, stream if plan.joint else "", which, data),
        companions=companions((tasks[task] for task in own), data) if training else None,
    )


@dataclass
class Built:
    """A model for fitted tasks, and what loading its weights did."""

    model: Model
    metrics: dict[str, list[Metric]]
    freeze: FreezePolicy
    adapter: Adapter | None
    coverage: Coverage | None


def make_model(plan: Plan, tasks: Mapping[str, Task], *, pretrained: bool = True) -> Built:
    """Backbone with its adapter, heads, losses, metrics and freeze policy.

    `pretrained`: load the weights that the config names.
    """
    seeding.seed_init(plan.config.train.seed)
    backbone = make_backbone(plan)
    image = plan.config.image
    size = image.size or (PROBE_SIZE, PROBE_SIZE)
    if min(size) < backbone.min_size:
        message = f"{plan.backbone.component.name} takes images of at least {backbone.min_size} pixels a side"
        raise ConfigError([plan.document.problem(("image", "size"), f"{message}, found {list(size)}")])
    heads, losses, metrics = {}, {}, {}
    for name, task in plan.tasks.items():
        lacking = [level for level in task.head.spec.levels if level not in backbone.channels]
        if lacking:
            message = f"head {task.head.component.name!r} needs {', '.join(lacking)}; this backbone has "
            raise ConfigError([Problem("backbone", message + ", ".join(backbone.levels))])
        context = HeadContext(
            backbone.channels, backbone.strides, tasks[name], plan.backbone.component.name, task.head_weights
        )
        heads[name] = make(task.head, context, Head)  # type: ignore[type-abstract]
        losses[name] = [make(loss, LossContext(tasks[name], heads[name]), Loss) for loss, _ in task.losses]  # type: ignore[type-abstract]
        metrics[name] = make_metrics(plan, name, tasks[name])
        if plan.monitor.task is None and not heads[name].loss_in_eval:
            message = f"the head {task.head.component.name} has no loss in evaluation; choose a metric"
            raise ConfigError([plan.document.problem(("train", "monitor"), message)])
    coverage = load_weights(backbone, plan.weights) if pretrained else None
    for name, task in plan.tasks.items():
        if pretrained and task.head_weights is not None:
            coverage = load_published(backbone, heads[name], task.head_weights)
    if backbone.clip is not None and (frames := plan.frames or 0) < backbone.clip:
        message = f"{plan.backbone.component.name} takes clips of at least {backbone.clip} frames, found {frames}"
        raise ConfigError([plan.document.problem(("data",), message)])
    shape = backbone.input_shape(padded(size) if image.fit in ("shorter", "none") else size, frames=plan.frames)
    single = probe(backbone, shape, plan.backbone.component.name)
    adapter = None
    if plan.adapter is not None:
        adapter = make(plan.adapter, AdapterContext(torch.zeros(shape)), Adapter)  # type: ignore[type-abstract]
        adapter.apply(backbone)
    model = Model(backbone, heads, losses, image.mean or backbone.mean, image.std or backbone.std)
    freeze = make(plan.freeze, freeze_context(model, plan.config.train.epochs), FreezePolicy)  # type: ignore[type-abstract]
    model.single_position_norms = single
    model.sliding = None if image.window is None else Sliding(image.window, image.window_overlap)
    return Built(model, metrics, freeze, adapter, coverage)


def make_backbone(plan: Plan) -> Backbone:
    """The backbone with random weights, up to the last level that a head asks for."""
    levels: set[str] | None = set()
    for task in plan.tasks.values():
        own = task.head.spec.levels
        levels = None if levels is None or not own else levels | set(own)
    offered = plan.backbone.spec.levels
    wanted = None if levels is None else tuple(level for level in offered if level in levels)
    weights = plan.weights.value if plan.weights.kind == "published" else None
    backbone = make(plan.backbone, BackboneContext(weights, wanted), Backbone)
    if (backbone.clip is None) != (plan.backbone.spec.input == "image"):
        found = "for images" if backbone.clip is None else f"for clips of at least {backbone.clip} frames"
        raise FtengineError(
            f"backbone {plan.backbone.component.name!r}: its spec says that it takes {plan.backbone.spec.input}s, and "
            f"what its factory made is {found}"
        )
    inside = set(map(id, backbone.stages.parameters()))
    outside = [name for name, parameter in backbone.named_parameters() if id(parameter) not in inside]
    if outside:
        raise FtengineError(
            f"backbone {plan.backbone.component.name!r}: all of its parameters must be in its stages, where they are "
            f"loaded, trained and frozen; outside are {name_list(outside)}"
        )
    return backbone


def make_metrics(plan: Plan, name: str, task: Task) -> list[Metric]:
    """New metrics of a task, in the config's order."""
    return [make(part, MetricContext(task), Metric) for part in plan.tasks[name].metrics]  # type: ignore[type-abstract]
