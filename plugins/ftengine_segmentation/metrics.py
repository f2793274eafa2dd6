"""Metrics of segmentation, all from a confusion matrix of pixels.

Every one reads ``prediction["mask"]``, uint8 [H, W], and ``targets["mask"]``, uint8 [B, H, W] or a list of [H, W],
of the predictions' sizes. Pixels whose target is 255 are not counted. The counts are int64 and therefore exact, and
so the same for any grouping into batches. All values lie in 0..1, and are NaN where the data do not define one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftengine.plugin import Options
from ftengine.protocols import IGNORE, Metric, MetricContext, Prediction, Targets
from ftengine_segmentation.options import MetricOptions


class Confusion(Metric):
    """`matrix`, int64 [C, C]: the pixels of class i (row) that were taken for class j (column)."""

    matrix: Tensor

    def __init__(self, context: MetricContext) -> None:
        self.names: tuple[str, ...] = context.task.labels.names
        self.reset()

    def reset(self) -> None:
        self.matrix = torch.zeros(len(self.names), len(self.names), dtype=torch.int64)

    def update(self, predictions: Sequence[Prediction], targets: Targets) -> None:
        for prediction, target in zip(predictions, targets["mask"], strict=True):
            self.matrix += confusion(prediction["mask"], target, len(self.names))

    def merge(self, other: Metric) -> None:
        if not isinstance(other, type(self)):
            raise TypeError(f"cannot merge {type(other).__name__} into {type(self).__name__}")
        self.matrix += other.matrix

    def details(self) -> dict[str, Any]:
        """``names`` [C] and ``matrix`` [C][C]: pixels of class i (row) taken for class j (column)."""
        return {"names": list(self.names), "matrix": self.matrix.tolist()}


class PerClass(Confusion):
    """A measure of each class, ``<key>/<class>``, and as `mean_key` the mean of those that have one.

    A class that neither occurs nor is predicted has none: it is NaN, and left out of the mean. One that occurs and
    is never predicted, or the other way round, has 0.
    """

    key: str
    mean_key: str

    def __init__(self, options: MetricOptions, context: MetricContext) -> None:
        super().__init__(context)
        self.per_class = options.per_class

    @abstractmethod
    def measure(self, right: Tensor, wrong: Tensor) -> Tensor:
        """For float64 [C] pixels that are right (tp) and wrong (fp + fn), the measure, NaN where both are 0."""

    def compute(self) -> dict[str, float]:
        right = self.matrix.diagonal()
        wrong = self.matrix.sum(0) + self.matrix.sum(1) - 2 * right
        each = self.measure(right.double(), wrong.double())
        values: dict[str, float] = {self.mean_key: each.nanmean().item()}
        if self.per_class:
            values |= {f"{self.key}/{name}": value for name, value in zip(self.names, each.tolist(), strict=True)}
        return values


class MeanIou(PerClass):
    """``mean_iou`` and ``iou/<class>``: intersection over union of the truth's and the prediction's pixels.

    Over all pixels of the split together, as in the PASCAL VOC challenge (Everingham et al., 2010) and Cityscapes.
    """

    key, mean_key = "iou", "mean_iou"

    def measure(self, right: Tensor, wrong: Tensor) -> Tensor:
        return right / (right + wrong)


class Dice(PerClass):
    """``dice`` and ``dice/<class>``: 2 tp / (2 tp + fp + fn), which is the F1 score of the pixels."""

    key = mean_key = "dice"

    def measure(self, right: Tensor, wrong: Tensor) -> Tensor:
        return 2 * right / (2 * right + wrong)


class PixelAccuracy(Confusion):
    """``pixel_accuracy``: the share of pixels whose class is right."""

    def compute(self) -> dict[str, float]:
        pixels = int(self.matrix.sum())
        return {"pixel_accuracy": int(self.matrix.diagonal().sum()) / pixels if pixels else math.nan}


def confusion(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """The confusion matrix of two masks, int64 [C, C]; raises ValueError for masks that cannot be compared."""
    if prediction.shape != target.shape:
        raise ValueError(f"a predicted mask of {list(prediction.shape)} for one of {list(target.shape)} pixels")
    if not _are_classes(prediction, classes):
        # Where the target is ignored, anything may be said, also that: a perfect prediction is the target itself.
        prediction = prediction.where(target != IGNORE, 0)
        if not _are_classes(prediction, classes):
            values = f"values from {int(prediction.min())} to {int(prediction.max())}"
            raise ValueError(f"a predicted mask with {values}; there are {classes} classes")
    # Counted with a row for each of the 256 values, of which the last ones are ignored: that is many times faster
    # than to select the pixels that count. The pairs stay below 2^16, and counts are int64 whatever their type.
    pairs = target.to(torch.int32) * classes + prediction
    return torch.bincount(pairs.reshape(-1), minlength=256 * classes).reshape(256, classes)[:classes]


def _are_classes(mask: Tensor, classes: int) -> bool:
    return not mask.numel() or 0 <= int(mask.min()) <= int(mask.max()) < classes


def mean_iou(options: MetricOptions, context: MetricContext) -> MeanIou:
    return MeanIou(options, context)


def dice(options: MetricOptions, context: MetricContext) -> Dice:
    return Dice(options, context)


def pixel_accuracy(options: Options, context: MetricContext) -> PixelAccuracy:
    return PixelAccuracy(context)
