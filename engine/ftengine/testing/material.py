"""What the metrics and the task of a small run are given: samples, what a model predicts of them, and what is right."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftengine.build import make, make_dataset
from ftengine.data import Item, Split
from ftengine.errors import DataError
from ftengine.model import StreamBatch
from ftengine.passes import Passes
from ftengine.plan import TaskPlan
from ftengine.plugin import DatasetOptions
from ftengine.protocols import Dataset, Metric, MetricContext, Prediction, Targets, Task, TaskContext
from ftengine.testing.checks import NotApplicable
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import Subject

MOST = 16
"""Samples of the validation split that are looked at."""

LEAST = 3
"""Samples that it takes to group them in more than one way."""

PLACE = "the val split"
"""What encoders are told that they are for."""


@dataclass
class Samples:
    """What a task learns from and is evaluated on: the same, where the data name no `val`. It is fitted on `train`."""

    plan: TaskPlan
    task: Task
    train: Dataset
    val: Dataset

    @property
    def places(self) -> range:
        """The samples of `val` that are looked at."""
        return range(min(len(self.val), MOST))

    def target(self, place: int) -> dict[str, Any]:
        """The target of a sample of `val` as an encoder gets it, new at each call."""
        target = copy.deepcopy(dict(self.val.target(place)))
        return {**target, "mask": self.val.mask(place)} if self.plan.field == "mask" else target

    def encoded(self, task: Task) -> list[Mapping[str, np.ndarray]]:
        """What the encoder of `task` makes of these samples' targets."""
        encoder = task.encoder(self.val, PLACE)
        return [encoder(self.target(place)) for place in self.places]


@dataclass
class Material:
    """A fitted task, and the first samples of the small run's validation split on their way through the run.

    `model` are the predictions of the small run's model, which has not been trained, in evaluation; `perfect` those
    that the targets ask for, None where the task cannot tell.
    """

    plan: TaskPlan
    task: Task
    split: Split
    items: list[Item]
    model: list[Prediction]
    perfect: list[Prediction] | None

    @property
    def varied(self) -> list[Prediction]:
        """The model's predictions, every other one of which is perfect, if that is possible: right and wrong ones."""
        perfect = self.perfect or self.model
        return [perfect[place] if place % 2 else one for place, one in enumerate(self.model)]

    def targets(self, places: Sequence[int]) -> Targets:
        """The targets of the samples at `places` as a metric gets them, in a batch; new ones at each call."""
        batch = self.split.collate([self.items[place] for place in places])
        assert isinstance(batch, StreamBatch)
        return copy.deepcopy(batch.truths[self.plan.name])


def new_task(subject: Subject) -> Task:
    """A task, new and not fitted."""
    return make(subject.part, TaskContext(_task_plan(subject).field), Task)  # type: ignore[type-abstract]


def samples(subject: Subject) -> Samples:
    """What a task learns from. Nothing of the task but `fit` is asked for here."""
    return subject.once(_make_samples)


def material(subject: Subject) -> Material:
    """That of the task that `subject` is, or belongs to. Raises NotApplicable where there are too few samples."""
    found = subject.once(_make_material)
    if len(found.items) < LEAST:
        raise NotApplicable(f"the small run's validation split has {len(found.items)} samples; {LEAST} are needed")
    return found


def new_metric(subject: Subject) -> Metric:
    """A metric, new."""
    return make(subject.part, MetricContext(material(subject).task), Metric)  # type: ignore[type-abstract]


def fed(metric: Metric, found: Material, predictions: Sequence[Prediction], groups: Sequence[Sequence[int]]) -> Metric:
    """`metric`, after it has seen batches of the samples at the places that `groups` lists."""
    for places in groups:
        own = copy.deepcopy([predictions[place] for place in places])
        metric.update(own, found.targets(places))
    return metric


def _task_plan(subject: Subject) -> TaskPlan:
    part = subject.part
    return next(plan for plan in subject.plan.tasks.values() if part == plan.task or part in plan.metrics)


def _make_samples(subject: Subject) -> Samples:
    plan = _task_plan(subject)
    options = subject.plan.streams[plan.stream].options
    assert isinstance(options, DatasetOptions)
    train = make_dataset(subject.plan, plan.stream, "train")
    # What is held out of it would depend on the task's own strata.
    val = train if options.val is None else make_dataset(subject.plan, plan.stream, "val")
    task = new_task(subject)
    with global_seeds(0):
        task.fit(train)
    return Samples(plan, task, train, val)


@torch.no_grad()
def _make_material(subject: Subject) -> Material:
    with global_seeds(0):
        run = subject.training()
        plan = _task_plan(subject)
        task, split = run.tasks[plan.name], run.streams[plan.stream].val
        items = [split[0, index] for index in range(min(len(split), MOST))]
        batch = split.collate(items)
        if not isinstance(batch, StreamBatch):
            raise DataError(batch.message)
        run.model.eval()
        predictions, _ = Passes(run.model, run.precision, [plan.name])(batch)
    good = [item for item in items if isinstance(item, Item)]
    perfect = None
    if type(task).perfect is not Task.perfect:
        perfect = [task.perfect(copy.deepcopy(item.truths[plan.name])) for item in good]
    return Material(plan, task, split, good, predictions[plan.name], perfect)
