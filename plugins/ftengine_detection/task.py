"""The detection task: boxes with class names to tensors, and predictions to COCO results, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftengine.errors import DataError, name_list
from ftengine.pictures import draw_boxes
from ftengine.protocols import Dataset, Encoder, LabelMap, Prediction, Target, Targets, Task, TaskContext
from ftengine_detection.checks import check_target
from ftengine_detection.options import TaskOptions


class Detection(Task):
    """A box and a class for each object in an image (field ``boxes``).

    After `fit` or `load_state`: `labels`, the class names, with the files' own ids where they have any; `counts`,
    int64 [C], the training boxes of each class, crowds not counted; `samples`, the number of training images. A class
    may be without boxes in the training split, as COCO files list classes that they do not use.

    A prediction has `boxes`, float32 [N, 4] as x1 y1 x2 y2 in the original's pixels, `scores`, float32 [N] in 0..1, and
    `labels`, int64 [N], indices of class names; the best come first.
    """

    labels: LabelMap
    counts: np.ndarray
    samples: int

    def __init__(self, options: TaskOptions, context: TaskContext) -> None:
        self.field = context.field
        self.threshold = options.threshold

    def fit(self, data: Dataset) -> None:
        names = _names(data, self.field, "train")
        presence = self._boxes_by_class(data, len(names), "train")
        if not presence.any():
            least = "a box that is no crowd"
            raise DataError(f"train: {self.field}: none of {len(data)} images has {least}; there is nothing to learn")
        ids = data.ids.get(self.field)
        self.labels = LabelMap(names, None if ids is None else tuple(int(number) for number in ids))
        self.counts = presence.sum(axis=0)
        self.samples = len(data)

    def state(self) -> dict[str, Any]:
        return {
            "names": list(self.labels.names),
            "ids": None if self.labels.ids is None else list(self.labels.ids),
            "counts": self.counts.tolist(),
            "samples": self.samples,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        ids = state["ids"]
        self.labels = LabelMap(tuple(state["names"]), None if ids is None else tuple(ids))
        self.counts = np.array(state["counts"], dtype=np.int64)
        self.samples = int(state["samples"])

    def encoder(self, data: Dataset, place: str) -> Encoder:
        """``boxes`` float64 [N, 4], ``labels`` int64 [N] by the training split, ``crowd`` bool, ``areas`` float64."""
        names = _names(data, self.field, place)
        index = self.labels.remap(names, place)
        self._check_ids(names, data.ids.get(self.field), place)
        self._boxes_by_class(data, len(names), place)
        return BoxEncoder(index)

    def collate(self, encoded: Sequence[Mapping[str, np.ndarray]]) -> Targets:
        """Of each array a list of tensors, one an image."""
        return {name: [torch.from_numpy(np.asarray(sample[name])) for sample in encoded] for name in encoded[0]}

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """``boxes``, how many have at least the task's threshold as score, and ``n(<class>)``, how many of each."""
        found = prediction["labels"][prediction["scores"] >= self.threshold]
        counts = torch.bincount(found, minlength=len(self.labels)).tolist()
        each = {f"n({name})": count for name, count in zip(self.labels.names, counts, strict=True)}
        return {"boxes": len(found), **each}

    def records(self, prediction: Prediction, image_id: int) -> list[dict[str, Any]]:
        """COCO results, a row a box: ``bbox`` is [x, y, width, height].

        Where the data have no ids of their own, ``category_id`` is the index of the class plus 1, as COCO's start at 1.
        """
        ids = self.labels.ids or range(1, len(self.labels) + 1)
        boxes = prediction["boxes"].double()
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
        rows = zip(boxes.tolist(), prediction["scores"].tolist(), prediction["labels"].tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score} for box, score, label in rows
        ]

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """The boxes from the task's threshold on, with name and score (unless it is 1, as of the truth)."""
        shown = prediction["scores"] >= self.threshold
        labels = prediction["labels"][shown]
        captions = [
            self.labels.names[label] + (f" {score:.2f}" if score < 1 else "")
            for label, score in zip(labels.tolist(), prediction["scores"][shown].tolist(), strict=True)
        ]
        return draw_boxes(image, prediction["boxes"][shown].numpy(), labels.numpy(), captions)

    def perfect(self, encoded: Mapping[str, np.ndarray]) -> Prediction:
        """Every box that is no crowd, with score 1."""
        single = ~encoded["crowd"]
        return {
            "boxes": torch.from_numpy(encoded["boxes"][single]).float(),
            "scores": torch.ones(int(single.sum())),
            "labels": torch.from_numpy(encoded["labels"][single]),
        }

    def strata(self, data: Dataset) -> np.ndarray:
        """For each image the rarest of its classes, by images, so that it is spread over the splits; C for no box."""
        names = _names(data, self.field, "train")
        present = self._boxes_by_class(data, len(names), "train") > 0
        images = present.sum(axis=0)
        rarest = np.where(present, images, len(data) + 1).argmin(axis=1)
        return np.where(present.any(axis=1), rarest, len(names))

    def _check_ids(self, names: Sequence[str], ids: Sequence[int] | None, place: str) -> None:
        """Results are written with the training split's ids: they must be this split's."""
        if ids is None or self.labels.ids is None:
            return
        trained = dict(zip(self.labels.names, self.labels.ids, strict=True))
        for name, number in zip(names, ids, strict=True):
            if number != trained[name]:
                raise DataError(
                    f"{place}: the class {name!r} has the id {number}, and in the training split "
                    f"{trained[name]}; the files' lists of classes must agree"
                )

    def _boxes_by_class(self, data: Dataset, classes: int, place: str) -> np.ndarray:
        """How many boxes of each class each image has, all of them checked: int64 [images, classes]."""
        counts = np.zeros((len(data), classes), np.int64)
        for i in range(len(data)):
            target = data.target(i)
            try:
                check_target(target, classes, data.size(i))
            except ValueError as error:
                raise DataError(f"{place}: sample {data.sample_id(i)!r}: {error}") from None
            single = ~np.asarray(target["box_crowd"], bool)
            counts[i] = np.bincount(np.asarray(target["box_labels"], np.int64)[single], minlength=classes)
        return counts


@dataclass(frozen=True)
class BoxEncoder:
    """`index`: for each class of a split, its index in the training split."""

    index: np.ndarray

    def __call__(self, target: Target) -> dict[str, np.ndarray]:
        return {
            "boxes": np.asarray(target["boxes"], np.float64).reshape(-1, 4),
            "labels": self.index[np.asarray(target["box_labels"], np.int64)],
            "crowd": np.asarray(target["box_crowd"], bool),
            "areas": np.asarray(target["box_areas"], np.float64),
        }


def _names(data: Dataset, field: str, place: str) -> tuple[str, ...]:
    if field not in data.names:
        raise DataError(f"{place}: the data have no target field {field!r}; they have: {name_list(data.names)}")
    names = tuple(data.names[field])
    if not names:
        raise DataError(f"{place}: {field}: there is no class")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"{place}: {field}: class names given more than once: {name_list(twice)}")
    return names
