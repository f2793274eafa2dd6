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
from ftengine.protocols import Dataset, Loss, LossContext, Target, Task, TaskContext
from ftengine.testing.bench import bench, seen
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.heads import predicted
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import FIELDS, Subject
from ftengine.vocabulary import IGNORE, MAX_CLASSES

EXTRA = 2
"""Samples that are of a further name."""


@check("head")
def head_channels(subject: Subject) -> None:
    """It is made for the channels that its context gives: twice as many do, too."""
    found = bench(subject)
    channels = found.run.model.backbone.channels
    features = {level: torch.cat([values, values], 1) for level, values in found.features.items()}

    def run() -> None:
        predicted(found, found.new_head(0, widening=2), found.whole(), features)

    twice = {level: 2 * number for level, number in channels.items()}
    _must_run(run, f"that it can be made for other channels: {twice} in place of {dict(channels)}")


@check("head", "loss")
def one_name_more(subject: Subject) -> None:
    """It is made for the names that its task has learnt: one name more does, too."""
    found = bench(subject)
    plan, own = found.run.plan, found.plan
    if own.field not in FIELDS:
        raise NotApplicable(f"the kit knows no other names of `{own.field}`")
    train = make_dataset(plan, own.stream, "train")
    count = len(train.names[own.field])
    if own.field == "mask" and count == MAX_CLASSES:
        raise NotApplicable(f"a mask has {MAX_CLASSES} classes at most")
    data = OneMore(train, own.field)
    task = make(own.task, TaskContext(own.field), Task)  # type: ignore[type-abstract]
    task.fit(data)
    split = make_split(plan, {own.name: task}, data, "train", (own.name,), own.stream)
    order = [[(0, place) for place in range(len(found.batch))]]
    batch, features = seen(found.run, own, next(batches(split, order, LoaderSettings())))

    def run() -> None:
        head = found.new_head(0, task=task)
        with global_seeds(0):
            losses = [make(part, LossContext(task, head), Loss) for part, _ in own.losses]  # type: ignore[type-abstract]
            output = head.train()(features, batch)
            for (part, _), loss in zip(own.losses, losses, strict=True):
                terms_of(part, loss.train(), output, batch)
        predicted(found, head.eval(), batch, features)

    _must_run(run, f"that it can be made for {count + 1} names of `{own.field}` in place of {count}")


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


def _must_run(run: Callable[[], None], expected: str) -> None:
    try:
        run()
    except TrainingError:
        raise  # it says what is wrong, in any run
    except Exception as error:
        raise Nonconformity(expected, f"{type(error).__name__}: {error}") from error
