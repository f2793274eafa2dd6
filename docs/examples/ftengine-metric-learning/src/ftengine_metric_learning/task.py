"""The task: class names to indices, also of classes that training never saw."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftengine.errors import DataError, name_list
from ftengine.protocols import Companions, Dataset, LabelMap, Prediction, Target, Task, TaskContext
from ftengine_metric_learning.options import TaskOptions


class EmbeddingTask(Task):
    """An embedding for each image, learnt from the field ``label``.

    `labels`, after `fit` or `load_state`, are the classes that have training samples; losses with a weight for each
    class learn these. In another split classes may be missing, and new: their indices come after the training
    classes', by name, and tell the split's images apart. They mean nothing beyond it.
    """

    labels: LabelMap

    def __init__(self, options: TaskOptions, context: TaskContext) -> None:
        self.per_class = options.per_class

    def fit(self, data: Dataset) -> None:
        names = _names(data, "train")
        seen = np.unique(_labels(data, names, "train"))
        if len(seen) < 2:
            raise DataError(
                "train: metric learning tells classes apart and needs images of at least 2; found "
                f"{name_list(names[index] for index in seen) or 'none'}"
            )
        self.labels = LabelMap(tuple(names[index] for index in seen))

    def state(self) -> dict[str, Any]:
        return {"names": list(self.labels.names)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.labels = LabelMap(tuple(state["names"]))

    def encoder(self, data: Dataset, place: str) -> LabelEncoder:
        """``{"label": int64 []}``: below ``len(labels)`` for a training class, from there on for a new one."""
        names = _names(data, place)
        _labels(data, names, place)
        index = {name: number for number, name in enumerate(self.labels.names)}
        for name in sorted(names):
            index.setdefault(name, len(index))
        return LabelEncoder(np.array([index[name] for name in names]))

    def companions(self, data: Dataset) -> Companions | None:
        if self.per_class is None:
            return None
        return Companions(_labels(data, _names(data, "train"), "train"), self.per_class)

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """``e0``, ``e1``, …: the numbers of the embedding."""
        return {f"e{index}": value for index, value in enumerate(prediction["embedding"].tolist())}

    def strata(self, data: Dataset) -> np.ndarray:
        return _labels(data, _names(data, "train"), "train")


@dataclass(frozen=True)
class LabelEncoder:
    """`index`: the label of each class of a split."""

    index: np.ndarray

    def __call__(self, target: Target) -> dict[str, np.ndarray]:
        return {"label": np.asarray(self.index[target["label"]], dtype=np.int64)}


def _names(data: Dataset, place: str) -> tuple[str, ...]:
    names = tuple(data.names["label"])
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"{place}: label: class names given more than once: {name_list(twice)}")
    return names


def _labels(data: Dataset, names: tuple[str, ...], place: str) -> np.ndarray:
    """The checked label of each sample, in the split's own indices: int64 [N]."""
    labels = np.empty(len(data), np.int64)
    for index in range(len(data)):
        value: Any = data.target(index).get("label")
        try:
            label = operator.index(value)
        except TypeError:
            label = -1
        if not 0 <= label < len(names):
            raise DataError(
                f"{place}: sample {data.sample_id(index)!r}: label is {value!r}; expected a class index from 0 to "
                f"{len(names) - 1}"
            )
        labels[index] = label
    return labels
