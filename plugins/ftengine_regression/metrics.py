"""Metrics of regression, in original units.

Every one reads ``prediction["values"]``, float32 [T], and ``targets["values"]``, float32 [B, T]. All pairs are
kept, and the values computed in float64 at the end: so they do not depend on how the split was cut into batches,
and sums of squares of large numbers do not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ftengine.plugin import Options
from ftengine.protocols import Metric, MetricContext, Prediction


class ValuesMetric(Metric):
    """`measure` of each target; with several, ``<name>/<target>`` for each and their mean as ``<name>``.

    `measure` takes predictions and targets, float64 [N], and returns one number. The mean is over those targets
    that have one; NaN if none has, and without samples.
    """

    def __init__(self, name: str, measure: Callable[[np.ndarray, np.ndarray], float], context: MetricContext) -> None:
        self.name = name
        self.measure = measure
        self.targets: tuple[str, ...] = context.task.names
        self.reset()

    def reset(self) -> None:
        self._predicted: list[np.ndarray] = []
        self._true: list[np.ndarray] = []

    def update(self, predictions: Sequence[Prediction], targets: Mapping[str, Tensor]) -> None:
        if predictions:
            self._predicted.append(torch.stack([prediction["values"] for prediction in predictions]).numpy())
            self._true.append(targets["values"].numpy().copy())

    def merge(self, other: Metric) -> None:
        if not isinstance(other, ValuesMetric) or other.name != self.name:
            raise TypeError(f"cannot merge {getattr(other, 'name', type(other).__name__)} into {self.name}")
        self._predicted += other._predicted
        self._true += other._true

    def compute(self) -> dict[str, float]:
        if self._true:
            predicted, true = (np.concatenate(parts).astype(np.float64) for parts in (self._predicted, self._true))
            each = [float(self.measure(predicted[:, i], true[:, i])) for i in range(len(self.targets))]
        else:
            each = [math.nan] * len(self.targets)
        defined = [value for value in each if not math.isnan(value)]
        mean = math.fsum(defined) / len(defined) if defined else math.nan
        if len(each) == 1:
            return {self.name: mean}
        return {self.name: mean} | {
            f"{self.name}/{name}": value for name, value in zip(self.targets, each, strict=True)
        }


def mae(options: Options, context: MetricContext) -> ValuesMetric:
    """``mae``: mean absolute error."""
    return ValuesMetric("mae", _mae, context)


def rmse(options: Options, context: MetricContext) -> ValuesMetric:
    """``rmse``: root of the mean squared error."""
    return ValuesMetric("rmse", _rmse, context)


def r2(options: Options, context: MetricContext) -> ValuesMetric:
    """``r2``: 1 - squared error / squared deviation from the mean; 1 is perfect, 0 as good as the mean.

    NaN for a target that is the same in all samples of the split.
    """
    return ValuesMetric("r2", _r2, context)


def mape(options: Options, context: MetricContext) -> ValuesMetric:
    """``mape``: mean of |error / true value|; 0.1 is 10 %. NaN for a target that is 0 in some sample."""
    return ValuesMetric("mape", _mape, context)


def _mae(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(predicted - true).mean())


def _rmse(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(np.square(predicted - true).mean()))


def _r2(predicted: np.ndarray, true: np.ndarray) -> float:
    if true.min() == true.max():
        return math.nan
    return float(1 - np.square(predicted - true).sum() / np.square(true - true.mean()).sum())


def _mape(predicted: np.ndarray, true: np.ndarray) -> float:
    if (true == 0).any():
        return math.nan
    return float(np.abs((predicted - true) / true).mean())
