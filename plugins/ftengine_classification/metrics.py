"""Metrics of classification, counted by torchmetrics.

Every one reads ``prediction["scores"]``, float32 [C], and ``targets["label"]`` int64 [B] or ``targets["labels"]``
float [B, C]. In a multi-label task a class counts as predicted from the task's threshold on. All values lie in
0..1, and are NaN where the data do not define one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import classification as tm

from ftengine.errors import FtengineError
from ftengine.plugin import Options
from ftengine.protocols import Metric, MetricContext, Prediction
from ftengine_classification.options import AurocOptions, AverageOptions, TopKOptions

# Ranks are merged by `merge`, so torchmetrics must not do it a second time. Its cache of the result is not cleared
# by its own `merge_state`. Its validation repeats, batch by batch, what the task has checked.
SETTINGS: dict[str, Any] = {"sync_on_compute": False, "compute_with_cache": False, "validate_args": False}


class TorchmetricsMetric(Metric):
    """A metric whose state is `inner`, one torchmetrics object."""

    def __init__(self, context: MetricContext, inner: torchmetrics.Metric) -> None:
        self.field: str = context.task.field
        self.multi_label: bool = context.task.multi_label
        self.names: tuple[str, ...] = context.task.labels.names
        self.inner = inner

    def update(self, predictions: Sequence[Prediction], targets: Mapping[str, Tensor]) -> None:
        if predictions:
            scores = torch.stack([prediction["scores"] for prediction in predictions])
            self.inner.update(scores, targets[self.field].long())

    def reset(self) -> None:
        self.inner.reset()

    def merge(self, other: Metric) -> None:
        if not isinstance(other, type(self)):
            raise TypeError(f"cannot merge {type(other).__name__} into {type(self).__name__}")
        self.inner.merge_state(other.inner)

    def result(self) -> Tensor:
        with warnings.catch_warnings():
            # A metric that was only merged into has a valid state, though `update` was never called.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            # ROC curves of one-sided classes: `Auroc` makes these NaN.
            warnings.filterwarnings("ignore", message="No (positive|negative) samples in targets")
            result: Tensor = self.inner.compute()
        return result

    def per_class(self, key: str, values: Tensor) -> dict[str, float]:
        return {f"{key}/{name}": value for name, value in zip(self.names, values.tolist(), strict=True)}


class Counts(TorchmetricsMetric):
    """True and false positives and negatives of each class, and what follows from them."""

    def __init__(self, context: MetricContext, top_k: int = 1) -> None:
        classes = len(context.task.labels)
        inner: torchmetrics.Metric
        if context.task.multi_label:
            threshold = _inclusive(context.task.threshold)
            inner = tm.MultilabelStatScores(classes, threshold=threshold, average=None, **SETTINGS)
        else:
            inner = tm.MulticlassStatScores(classes, top_k=top_k, average=None, **SETTINGS)
        super().__init__(context, inner)

    def counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tp, fp, tn, fn, each float64 [C]."""
        tp, fp, tn, fn, _ = self.result().reshape(len(self.names), 5).double().unbind(-1)
        return tp, fp, tn, fn


class Accuracy(Counts):
    """``accuracy``: the share of images whose most probable class is right.

    Multi-label: the share of right decisions among all B * C, which is high where classes are rare;
    ``exact_match`` asks for all of an image's classes.
    """

    def compute(self) -> dict[str, float]:
        tp, fp, tn, fn = (count.sum() for count in self.counts())
        ratio = (tp + tn) / (tp + fp + tn + fn) if self.multi_label else tp / (tp + fn)
        return {"accuracy": ratio.item()}


class TopK(Counts):
    """``top<k>_accuracy``: the share of images whose class is among the k most probable."""

    def __init__(self, k: int, context: MetricContext) -> None:
        classes = len(context.task.labels)
        if k > classes:
            raise FtengineError(f"top_k: k is {k}, but there are only {classes} classes; expected at most {classes}")
        super().__init__(context, top_k=k)
        self.key = f"top{k}_accuracy"

    def compute(self) -> dict[str, float]:
        tp, _, _, fn = (count.sum() for count in self.counts())
        return {self.key: (tp / (tp + fn)).item()}


class Rate(Counts):
    """``precision`` tp / (tp + fp), ``recall`` tp / (tp + fn) or ``f1`` 2 tp / (2 tp + fp + fn).

    A class that is neither present nor predicted has none (NaN) and is left out of the macro average; one whose
    denominator alone is 0 counts as 0.
    """

    def __init__(
        self, name: Literal["precision", "recall", "f1"], options: AverageOptions, context: MetricContext
    ) -> None:
        super().__init__(context)
        self.name = name
        self.options = options

    def rate(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        denominator = {"precision": tp + fp, "recall": tp + fn, "f1": tp + (fp + fn) / 2}[self.name]
        rate = torch.where(denominator > 0, tp / denominator, 0.0)
        return torch.where(tp + fp + fn > 0, rate, math.nan)

    def compute(self) -> dict[str, float]:
        tp, fp, _, fn = self.counts()
        each = self.rate(tp, fp, fn)
        if self.options.average == "micro":
            mean = self.rate(tp.sum(), fp.sum(), fn.sum())
        elif self.options.average == "macro":
            mean = each.nanmean()
        else:
            mean = (each.nan_to_num() * (tp + fn)).sum() / (tp + fn).sum()
        values: dict[str, float] = {self.name: mean.item()}
        return values | self.per_class(self.name, each) if self.options.per_class else values


class ExactMatch(TorchmetricsMetric):
    """``exact_match``: the share of images all of whose classes are right (subset accuracy)."""

    def __init__(self, context: MetricContext) -> None:
        threshold = _inclusive(context.task.threshold)
        super().__init__(context, tm.MultilabelExactMatch(len(context.task.labels), threshold, **SETTINGS))

    def compute(self) -> dict[str, float]:
        # torchmetrics takes 0 / 0 for 0.
        seen = torch.as_tensor(self.inner.metric_state["total"]) > 0
        return {"exact_match": self.result().item() if seen else math.nan}


class Auroc(TorchmetricsMetric):
    """``auroc``: area under the ROC curve of each class against the rest, exact; their mean.

    A class of which every sample or none is positive has no ROC curve: it is NaN, and left out of the mean. All
    scores of the split are kept, float32 [N, C].
    """

    def __init__(self, options: AurocOptions, context: MetricContext) -> None:
        make = tm.MultilabelAUROC if context.task.multi_label else tm.MulticlassAUROC
        super().__init__(context, make(len(context.task.labels), average="none", **SETTINGS))
        self.options = options

    def compute(self) -> dict[str, float]:
        each = torch.full((len(self.names),), math.nan)
        seen = self.inner.metric_state["target"]
        if seen:
            target = torch.cat(list(seen))
            positives = target.sum(0) if self.multi_label else target.bincount(minlength=len(self.names))
            defined = (positives > 0) & (positives < len(target))
            each = torch.where(defined, self.result().reshape(-1), math.nan)
        values = {"auroc": each.nanmean().item()}
        return values | self.per_class("auroc", each) if self.options.per_class else values


class ConfusionMatrix(TorchmetricsMetric):
    """``balanced_accuracy``: the mean recall of the classes that are present; in `details`, the matrix.

    Multi-label: each class has a 2 x 2 matrix, and its balanced accuracy is the mean of true positive and true
    negative rate; the value is the mean over classes that have both positives and negatives.
    """

    def __init__(self, context: MetricContext) -> None:
        classes = len(context.task.labels)
        inner: torchmetrics.Metric
        if context.task.multi_label:
            threshold = _inclusive(context.task.threshold)
            inner = tm.MultilabelConfusionMatrix(classes, threshold=threshold, **SETTINGS)
        else:
            inner = tm.MulticlassConfusionMatrix(classes, **SETTINGS)
        super().__init__(context, inner)

    def compute(self) -> dict[str, float]:
        matrix = self.result().double()
        # 0 / 0 is NaN: a class that is not there has no recall.
        recall = matrix.diagonal(dim1=-2, dim2=-1) / matrix.sum(-1)
        each = recall.mean(-1) if self.multi_label else recall
        return {"balanced_accuracy": each.nanmean().item()}

    def details(self) -> dict[str, Any]:
        """``names`` [C] and ``matrix`` [C][C]: samples of class i (row) taken for class j (column).

        Multi-label: ``matrix`` [C][2][2], for each class [[tn, fp], [fn, tp]].
        """
        return {"names": list(self.names), "matrix": self.result().tolist()}


def accuracy(options: Options, context: MetricContext) -> Accuracy:
    return Accuracy(context)


def top_k(options: TopKOptions, context: MetricContext) -> TopK:
    return TopK(options.k, context)


def precision(options: AverageOptions, context: MetricContext) -> Rate:
    return Rate("precision", options, context)


def recall(options: AverageOptions, context: MetricContext) -> Rate:
    return Rate("recall", options, context)


def f1(options: AverageOptions, context: MetricContext) -> Rate:
    return Rate("f1", options, context)


def exact_match(options: Options, context: MetricContext) -> ExactMatch:
    return ExactMatch(context)


def auroc(options: AurocOptions, context: MetricContext) -> Auroc:
    return Auroc(options, context)


def confusion_matrix(options: Options, context: MetricContext) -> ConfusionMatrix:
    return ConfusionMatrix(context)


def _inclusive(threshold: float) -> float:
    """torchmetrics asks for scores above its threshold, the task for scores from it on (both float32)."""
    limit = torch.tensor(threshold, dtype=torch.float32)
    return torch.nextafter(limit, torch.tensor(-math.inf)).item()
