"""The metric of action recognition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ftengine.plugin import Options
from ftengine.protocols import Metric, MetricContext, Prediction, Targets


class MeanClassAccuracy(Metric):
    """``mean_class_accuracy``: the share of right answers in each class, averaged over the classes that occur.

    Rare actions count as much as frequent ones. NaN where there are no clips. `details` are each class's own.
    """

    def __init__(self, options: Options, context: MetricContext) -> None:
        self.names: tuple[str, ...] = context.task.labels.names
        self.reset()

    def reset(self) -> None:
        self.right = torch.zeros(len(self.names), dtype=torch.int64)
        self.all = torch.zeros(len(self.names), dtype=torch.int64)

    def update(self, predictions: Sequence[Prediction], targets: Targets) -> None:
        for prediction, label in zip(predictions, targets["label"].tolist(), strict=True):
            self.right[label] += int(prediction["scores"].argmax()) == label
            self.all[label] += 1

    def compute(self) -> dict[str, float]:
        return {"mean_class_accuracy": float((self.right.double() / self.all).nanmean())}

    def merge(self, other: Metric) -> None:
        if not isinstance(other, MeanClassAccuracy):
            raise TypeError(f"cannot merge {type(other).__name__} into {type(self).__name__}")
        self.right += other.right
        self.all += other.all

    def details(self) -> dict[str, Any]:
        """``accuracy`` of each class by its name, None where it does not occur."""
        pairs = zip(self.names, self.right.tolist(), self.all.tolist(), strict=True)
        return {"accuracy": {name: right / count if count else None for name, right, count in pairs}}
