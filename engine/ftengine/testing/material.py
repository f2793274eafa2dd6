"""What the metrics and the task of a small run are given: samples, what a model predicts of them, and what is right."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftengine.build import make
from ftengine.data import Item, Split
from ftengine.errors import DataError
from ftengine.model import StreamBatch
from ftengine.passes import Passes
from ftengine.plan import TaskPlan
from ftengine.protocols import Dataset, Metric, MetricContext, Prediction, Targets, Task
from ftengine.testing.checks import NotApplicable
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import Subject

MOST = 16
"""Samples of the validation split that are looked at."""

PLACE = "the val split"
"""What encoders are told that they are for."""

LEAST = 3
"""Samples that it takes to group them in more than one way."""


@dataclass
class Material:
    """A fitted task, the dataset that it was fitted on, and the first samples of the small run's validation split.

    `model` are the predictions of the small run's model, which has not been trained, in evaluation; `perfect` those
    that the targets ask for, None where the task cannot tell.
    """

    plan: TaskPlan
    task: Task
    train: Dataset
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

    def target(self, place: int) -> dict[str, Any]:
        """The target of the sample at `place` as an encoder gets it, new at each call."""
        data, index = self.split.data, self.items[place].index
        target = copy.deepcopy(dict(data.target(index)))
        return {**target, "mask": data.mask(index)} if self.plan.field == "mask" else target

    def encoded(self, task: Task) -> list[Mapping[str, np.ndarray]]:
        """What the encoder of `task` makes of all samples' targets."""
        encoder = task.encoder(self.split.data, PLACE)
        return [encoder(self.target(place)) for place in range(len(self.items))]


def material(subject: Subject) -> Material:
    """That of the task that `subject` is, or belongs to. Raises NotApplicable where there are too few samples."""
    found = subject.once(_make)
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


@torch.no_grad()
def _make(subject: Subject) -> Material:
    with global_seeds(0):
        run = subject.training()
        part = subject.part
        plan = next(plan for plan in run.plan.tasks.values() if part == plan.task or part in plan.metrics)
        task, stream = run.tasks[plan.name], run.streams[plan.stream]
        items = [stream.val[0, index] for index in range(min(len(stream.val), MOST))]
        batch = stream.val.collate(items)
        if not isinstance(batch, StreamBatch):
            raise DataError(batch.message)
        run.model.eval()
        predictions, _ = Passes(run.model, run.precision, [plan.name])(batch)
    good = [item for item in items if isinstance(item, Item)]
    perfect = None
    if type(task).perfect is not Task.perfect:
        perfect = [task.perfect(copy.deepcopy(item.truths[plan.name])) for item in good]
    return Material(plan, task, stream.train.data, stream.val, good, predictions[plan.name], perfect)
