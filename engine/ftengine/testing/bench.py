"""What heads and losses are checked on: the small run's model before its first step, and one batch."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftengine.build import make
from ftengine.evaluate import terms_of
from ftengine.holdout import Subset
from ftengine.loading import LoaderSettings, batches, feed
from ftengine.model import StreamBatch
from ftengine.plan import Part, TaskPlan
from ftengine.protocols import Batch, Frame, Head, HeadContext, Loss, Output, Target, Targets, Task
from ftengine.testing.checks import NotApplicable
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import Subject
from ftengine.training import Training
from ftengine.vocabulary import IGNORE

CPU = torch.device("cpu")
EMPTY = ("boxes", "mask", "labels")
"""The target fields of which an image may have nothing."""


@dataclass
class Bench:
    """A run that was built and never trained, its model in eval mode; `batch`, its first training batch.

    `features` are the backbone's for that batch, without gradients. Nothing here is changed: heads and losses are
    copies, new at each call.
    """

    subject: Subject
    run: Training
    plan: TaskPlan
    batch: Batch
    features: dict[str, Tensor]

    @property
    def task(self) -> Task:
        """The fitted task."""
        return self.run.tasks[self.plan.name]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the batch."""
        height, width = self.batch.images.shape[-2:]
        return height, width

    def head(self, *, training: bool = False) -> Head:
        """The task's head as the run begins with it."""
        head: Head = copy.deepcopy(self.run.model.heads[self.plan.name])  # type: ignore[assignment]
        return head.train(training)

    def sure_head(self) -> Head:
        """The head in eval mode, with something to predict."""
        return without_biases(self.head())

    def new_head(
        self, seed: int, levels: tuple[str, ...] | None = None, *, widening: int = 1, task: Task | None = None
    ) -> Head:
        """Another head of the same options, random by `seed`, in eval mode.

        It is for a backbone with these `levels` only, with `widening` times the channels, and for another `task`.
        """
        backbone = self.run.model.backbone
        chosen = backbone.levels if levels is None else levels
        channels = {level: widening * backbone.channels[level] for level in backbone.levels if level in chosen}
        strides = {level: backbone.strides[level] for level in backbone.levels if level in chosen}
        context = HeadContext(channels, strides, task or self.task, self.run.plan.backbone.component.name)
        with global_seeds(seed):
            return make(self.plan.head, context, Head).eval()  # type: ignore[type-abstract]

    def losses(self) -> list[tuple[Part, Loss]]:
        """The loss that is checked, or all that the head is trained with; in train mode."""
        parts, modules = [part for part, _ in self.plan.losses], self.run.model.losses[self.plan.name]
        own = [(part, copy.deepcopy(loss).train()) for part, loss in zip(parts, modules, strict=True)]  # type: ignore[call-overload]
        if self.subject.kind != "loss":
            return own
        return [(part, loss) for part, loss in own if part.component == self.subject.component]

    def whole(self, *, targets: bool = False) -> Batch:
        """The batch as if its images had been read just so; without targets, as for prediction."""
        frames = [Frame.whole(*self.size)] * len(self.batch)
        return replace(self.batch, frames=frames, targets=self.batch.targets if targets else {})

    def forward(self, head: Head, batch: Batch, features: Mapping[str, Tensor] | None = None, seed: int = 0) -> Output:
        """What a head gives; torch's generators begin at `seed`."""
        with global_seeds(seed):
            return head(dict(features or self.features), batch)  # type: ignore[no-any-return]

    def terms(self, output: Output, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
        """The terms of `losses`; of two with one name the last."""
        with global_seeds(seed):
            terms = [terms_of(part, loss, output, batch) for part, loss in self.losses()]
        return {name: term for own in terms for name, term in own.items()}

    def empty(self) -> tuple[Batch, dict[str, Tensor]]:
        """Images with nothing in them to learn, and their features. Raises NotApplicable where there always is some."""
        field = self.plan.field
        if field not in EMPTY:
            raise NotApplicable(f"no image is without its `{field}`")
        split = copy.copy(self.run.streams[self.plan.stream].train)
        split.data = Emptied(split.data)
        order = [[(0, place) for place in range(len(self.batch))]]
        return seen(self.run, self.plan, next(batches(split, order, LoaderSettings())))

    def twice(self) -> tuple[Batch, dict[str, Tensor]]:
        """The batch and its features two times over."""
        batch = self.batch
        targets: Targets = {name: _doubled(value) for name, value in batch.targets.items()}
        images = torch.cat([batch.images] * 2)
        return Batch(images, targets, batch.ids * 2, batch.frames * 2), {
            level: torch.cat([values] * 2) for level, values in self.features.items()
        }


class Emptied(Subset):
    """The images of a dataset, with no boxes, none of several classes, and masks of pixels to ignore."""

    def __init__(self, data: Any) -> None:
        super().__init__(data, np.arange(len(data)))

    def target(self, index: int) -> Target:
        target = dict(super().target(index))
        for name, value in target.items():
            if name == "boxes" or name.startswith("box_"):
                target[name] = np.asarray(value)[:0]
            elif name == "labels":
                target[name] = np.zeros_like(value)
        return target

    def mask(self, index: int) -> np.ndarray:
        return np.full_like(super().mask(index), IGNORE)


@functools.lru_cache(maxsize=1)
def bench(subject: Subject) -> Bench:
    """That of a head or a loss. Only the latest is kept, since those of a whole plugin need not fit into memory."""
    with global_seeds(0):
        run = subject.training()
        part = subject.part
        plan = next(plan for plan in run.plan.tasks.values() if part in (plan.head, *(loss for loss, _ in plan.losses)))
        with closing(feed(run, plan.stream, whole=True)) as batches_of_it:
            data = next(batches_of_it)
        run.model.eval()
        return Bench(subject, run, plan, *seen(run, plan, data))


def without_biases(head: Head) -> Head:
    """`head` with zeros as biases.

    Detectors begin with biases by which no place holds an object, so that there would be no prediction to look at.
    """
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name.rpartition(".")[2] == "bias":
                parameter.zero_()
    return head


def chosen(batch: Batch, features: Mapping[str, Tensor], places: slice) -> tuple[Batch, dict[str, Tensor]]:
    """Some images of a batch, and their features."""
    targets = {name: value[places] for name, value in batch.targets.items()}
    part = Batch(batch.images[places], targets, batch.ids[places], batch.frames[places])
    return part, {level: values[places] for level, values in features.items()}


def seen(run: Training, plan: TaskPlan, data: StreamBatch) -> tuple[Batch, dict[str, Tensor]]:
    """What the head of a task gets of a batch: its view of it, and the features."""
    data = data.to(CPU)
    batch = Batch(run.model.normalise(data), data.targets[plan.name], data.ids, data.frames)
    with torch.no_grad():
        return batch, run.model.backbone(batch.images)


def _doubled(value: Any) -> Any:
    return value * 2 if isinstance(value, list) else torch.cat([value] * 2)
