"""Checks that heads and losses are made for the sizes that their contexts give, not for those of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ftengine.build import make, make_dataset, make_split
from ftengine.errors import TrainingError
from ftengine.evaluate import terms_of
from ftengine.holdout import Subset
from ftengine.loading import LoaderSettings, batches
from ftengine.protocols import Dataset, Head, HeadContext, Loss, LossContext, Target, Task, TaskContext
from ftengine.testing.bench import Bench, bench, seen
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.heads import predicted
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import FIELDS, Subject
from ftengine.vocabulary import IGNORE

EXTRA = 2
"""Samples that are of a further name."""


@check("head")
def head_channels(subject: Subject) -> None:
    """It is made for the channels that its context gives: twice as many do, too."""
    found = bench(subject)
    backbone = found.run.model.backbone
    channels = {level: 2 * number for level, number in backbone.channels.items()}
    features = {level: torch.cat([values, values], 1) for level, values in found.features.items()}
    context = HeadContext(channels, backbone.strides, found.task, found.run.plan.backbone.component.name)

    def run() -> None:
        with global_seeds(0):
            head = make(found.plan.head, context, Head)  # type: ignore[type-abstract]
        predicted(found, head.eval(), found.whole(), features)

    _must_run(run, f"that it can be made for other channels: {channels} in place of {dict(backbone.channels)}")


@check("head", "loss")
def one_name_more(subject: Subject) -> None:
    """It is made for the names that its task has learnt: one name more does, too."""
    found = bench(subject)
    field = found.plan.field
    if field not in FIELDS:
        raise NotApplicable(f"the kit knows no other names of `{field}`")
    plan, name = found.run.plan, found.plan.name
    task = make(found.plan.task, TaskContext(field), Task)  # type: ignore[type-abstract]
    data = OneMore(make_dataset(plan, found.plan.stream, "train"), field)
    task.fit(data)
    split = make_split(plan, {name: task}, data, "train", (name,), found.plan.stream)
    order = [[(0, place) for place in range(min(len(found.batch), len(data)))]]
    batch, features = seen(found.run, found.plan, next(batches(split, order, LoaderSettings())))

    def run() -> None:
        with global_seeds(0):
            made = _made(found, task)
            output = made[0].train()(features, batch)
            for part, loss in zip((part for part, _ in found.plan.losses), made[1], strict=True):
                terms_of(part, loss.train(), output, batch)
            predicted(found, made[0].eval(), batch, features)

    count = len(data.names[field])
    _must_run(run, f"that it can be made for {count} names of `{field}` in place of {count - 1}")


class OneMore(Subset):
    """A dataset whose `field` has one name more than it had: the first samples, there once again, are of that name."""

    def __init__(self, data: Dataset, field: str) -> None:
        super().__init__(data, np.array([*range(EXTRA), *range(len(data))]))
        self.field = field
        self.new = len(data.names[field])
        self.names = {**data.names, field: (*data.names[field], "one more")}
        if field in data.ids:
            self.ids = {**data.ids, field: (*data.ids[field], max(data.ids[field]) + 1)}

    def sample_id(self, index: int) -> str:
        return ("again-" if index < EXTRA else "") + super().sample_id(index)

    def target(self, index: int) -> Target:
        target: dict[str, Any] = dict(super().target(index))
        new = index < EXTRA
        if self.field == "label" and new:
            target["label"] = self.new
        elif self.field == "boxes" and new:
            target["box_labels"] = np.full_like(target["box_labels"], self.new)
        elif self.field in ("labels", "values"):
            target[self.field] = np.append(target[self.field], np.float32(new))
        return target

    def mask(self, index: int) -> np.ndarray:
        mask = super().mask(index)
        new = self.field == "mask" and index < EXTRA
        return np.where(mask == IGNORE, mask, np.uint8(self.new)) if new else mask


def _made(found: Bench, task: Task) -> tuple[Head, list[Loss]]:
    backbone = found.run.model.backbone
    context = HeadContext(backbone.channels, backbone.strides, task, found.run.plan.backbone.component.name)
    head = make(found.plan.head, context, Head)  # type: ignore[type-abstract]
    return head, [make(part, LossContext(task, head), Loss) for part, _ in found.plan.losses]  # type: ignore[type-abstract]


def _must_run(run: Callable[[], None], expected: str) -> None:
    try:
        run()
    except TrainingError:
        raise  # it says what is wrong, in any run
    except Exception as error:
        raise Nonconformity(expected, f"{type(error).__name__}: {error}") from error
