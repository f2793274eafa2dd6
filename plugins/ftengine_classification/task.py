"""The classification task: class names to indices, and scores back to names."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ftengine.errors import DataError, FtengineError, name_list
from ftengine.protocols import Dataset, Encoder, LabelMap, Prediction, Target, Targets, Task, TaskContext
from ftengine_classification.options import TaskOptions

MIN_STRATUM = 5
"""Multi-label: label combinations with fewer samples than this do not make a stratum of their own."""


class Classification(Task):
    """One class for each image (field ``label``), or any number of classes (field ``labels``).

    After `fit` or `load_state`: `labels`, the class names; `counts`, int64 [C], the training samples of each
    class; `samples`, the number of training samples. `multi_label` and `threshold` (the probability from which a
    class counts as present) are known from the start.
    """

    labels: LabelMap
    counts: np.ndarray
    samples: int

    def __init__(self, options: TaskOptions, context: TaskContext) -> None:
        self.field = context.field
        self.multi_label = context.field == "labels"
        self.threshold = options.threshold

    def fit(self, data: Dataset) -> None:
        names = _names(data, self.field, "train")
        least = 1 if self.multi_label else 2
        if len(names) < least:
            raise DataError(
                f"train: {self.field}: classification needs at least {least} classes; found {len(names)}: "
                f"{name_list(names)}"
            )
        presence = self._presence(data, len(names), "train")
        counts = (
            presence.sum(axis=0, dtype=np.int64) if self.multi_label else np.bincount(presence, minlength=len(names))
        )
        empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
        if empty:
            raise DataError(
                f"train: {self.field}: {'an empty class' if len(empty) == 1 else 'empty classes'}: {name_list(empty)}; "
                "every class needs at least one training sample"
            )
        self.labels = LabelMap(names)
        self.counts = counts.astype(np.int64)
        self.samples = len(data)

    def state(self) -> dict[str, Any]:
        return {
            "field": self.field,
            "names": list(self.labels.names),
            "counts": self.counts.tolist(),
            "samples": self.samples,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state["field"] != self.field:
            raise FtengineError(
                f"classification: the saved task was trained on the target field {state['field']!r}, "
                f"and this run's is {self.field!r}"
            )
        self.labels = LabelMap(tuple(state["names"]))
        self.counts = np.array(state["counts"], dtype=np.int64)
        self.samples = int(state["samples"])

    def encoder(self, data: Dataset, place: str) -> Encoder:
        """``{"label": int64 []}`` or ``{"labels": float32 [C]}``, with the training split's class indices."""
        names = _names(data, self.field, place)
        index = self.labels.remap(names, place)
        self._presence(data, len(names), place)
        if self.multi_label:
            return MultiLabelEncoder(index, len(self.labels))
        return LabelEncoder(index)

    def soften(self, targets: Targets) -> dict[str, Tensor]:
        """``label``, int64 [B], one-hot; ``labels`` as they are: float32 [B, C] in 0..1."""
        if self.multi_label:
            return {"labels": targets["labels"]}
        return {"label": functional.one_hot(targets["label"], len(self.labels)).float()}

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """``label`` and its ``score``, or ``labels`` joined by ";"; then ``p(<class>)`` for every class."""
        scores = prediction["scores"].tolist()
        names = self.labels.names
        each = {f"p({name})": score for name, score in zip(names, scores, strict=True)}
        if self.multi_label:
            present = [name for name, score in zip(names, scores, strict=True) if score >= self.threshold]
            return {"labels": ";".join(present), **each}
        best = int(np.argmax(scores))
        return {"label": names[best], "score": scores[best], **each}

    def perfect(self, encoded: Mapping[str, np.ndarray]) -> Prediction:
        """The score 1 for each class that the image has, 0 for the others."""
        if self.multi_label:
            return {"scores": torch.from_numpy(encoded["labels"].copy())}
        return {"scores": functional.one_hot(torch.tensor(int(encoded["label"])), len(self.labels)).float()}

    def strata(self, data: Dataset) -> np.ndarray:
        """The label of each sample; multi-label: its combination of labels.

        A combination that fewer than 5 samples have is replaced by the rarest of its classes, so that a rare class
        is spread over the splits, too.
        """
        presence = self._presence(data, len(_names(data, self.field, "train")), "train")
        if not self.multi_label:
            return presence
        combinations, stratum, sizes = np.unique(presence, axis=0, return_inverse=True, return_counts=True)
        class_sizes = presence.sum(axis=0)
        rarest = np.where(combinations > 0, class_sizes, len(data) + 1).argmin(axis=1)
        merged = np.where(sizes < MIN_STRATUM, len(combinations) + rarest, np.arange(len(combinations)))
        return np.asarray(merged[stratum.reshape(-1)], dtype=np.int64)

    def _presence(self, data: Dataset, classes: int, place: str) -> np.ndarray:
        """All targets of `data`, checked, with its own indices: int64 [N], or uint8 [N, C] if multi-label."""
        read = _read_labels if self.multi_label else _read_label
        rows = []
        for i in range(len(data)):
            try:
                rows.append(read(data.target(i), classes))
            except ValueError as error:
                raise DataError(f"{place}: sample {data.sample_id(i)!r}: {error}") from None
        if not rows:
            raise DataError(f"{place}: no samples")
        return np.stack(rows)


@dataclass(frozen=True)
class LabelEncoder:
    """`index`: for each class of a split, its index in the training split."""

    index: np.ndarray

    def __call__(self, target: Target) -> dict[str, np.ndarray]:
        return {"label": np.asarray(self.index[target["label"]], dtype=np.int64)}


@dataclass(frozen=True)
class MultiLabelEncoder:
    """`index`: for each class of a split, its index among the training split's `classes`."""

    index: np.ndarray
    classes: int

    def __call__(self, target: Target) -> dict[str, np.ndarray]:
        labels = np.zeros(self.classes, dtype=np.float32)
        labels[self.index] = target["labels"]
        return {"labels": labels}


def _names(data: Dataset, field: str, place: str) -> tuple[str, ...]:
    if field not in data.names:
        raise DataError(f"{place}: the data have no target field {field!r}; they have: {name_list(data.names)}")
    names = tuple(data.names[field])
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"{place}: {field}: class names given more than once: {name_list(twice)}")
    return names


def _read_label(target: Target, classes: int) -> np.ndarray:
    value: Any = target.get("label")
    try:
        label = operator.index(value)
    except TypeError:
        raise ValueError(f"label is {value!r}; expected a class index, an int from 0 to {classes - 1}") from None
    if not 0 <= label < classes:
        raise ValueError(f"label is {label}; expected a class index from 0 to {classes - 1}")
    return np.asarray(label, dtype=np.int64)


def _read_labels(target: Target, classes: int) -> np.ndarray:
    labels = np.asarray(target.get("labels"))
    if labels.shape != (classes,):
        raise ValueError(
            f"labels has the shape {list(labels.shape)}; expected one number for each of {classes} classes"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels holds {labels[~np.isin(labels, (0, 1))][0]!s}; expected only 0 and 1")
    return labels.astype(np.uint8)
