"""COCO's measures of detection, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from ftengine.protocols import Metric, MetricContext, Prediction, Targets
from ftengine_detection.options import SUMMARY, CocoMapOptions


@dataclass(frozen=True)
class Truth:
    """One image's objects: `boxes` float64 [N, 4] as x1 y1 x2 y2, `labels` int64, `crowd` bool, `areas` float64 [N]."""

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Found:
    """One image's detections: `boxes` float32 [N, 4] as x1 y1 x2 y2, `scores` float32 [N], `labels` int64 [N]."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class CocoMap(Metric):
    """``map``, ``map_50`` … ``mar_large``: COCO's twelve numbers, and ``map/<class>``, the `map` of each class.

    All lie in 0..1; NaN where no object of a class or a size is there to be found. `map` is the mean over the IoU
    thresholds 0.50, 0.55 … 0.95, `map_50` at 0.5 alone; small objects have an area below 32², large ones above 96²
    square pixels; `mar_<n>` is the recall that n detections an image reach. Detections in a crowd are neither right
    nor wrong. Lin et al., "Microsoft COCO: Common Objects in Context", 2014.

    The values are those of pycocotools for the annotation file and the result file, to the last digit, where the images
    come in the order of their ids: between detections of one score, the first comes first. What was seen is kept as
    arrays, 28 bytes a detection and 49 an object.
    """

    def __init__(self, options: CocoMapOptions, context: MetricContext) -> None:
        labels = context.task.labels
        self.names: tuple[str, ...] = labels.names
        # Classes go by the files' ids, since the order of the classes decides how the last digit of a mean is rounded.
        self.ids: tuple[int, ...] = labels.ids or tuple(range(1, len(labels) + 1))
        self.per_class = options.per_class
        self.reset()

    def reset(self) -> None:
        self.images: list[tuple[Truth, Found]] = []

    def update(self, predictions: Sequence[Prediction], targets: Targets) -> None:
        columns = (targets[name] for name in ("boxes", "labels", "crowd", "areas"))
        for prediction, *truth in zip(predictions, *columns, strict=True):
            found = (prediction[name] for name in ("boxes", "scores", "labels"))
            self.images.append((Truth(*map(_copy, truth)), Found(*map(_copy, found))))

    def merge(self, other: Metric) -> None:
        if not isinstance(other, CocoMap):
            raise TypeError(f"cannot merge {type(other).__name__} into {type(self).__name__}")
        self.images += other.images

    def compute(self) -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluator = COCOeval(self._truth(), self._found(), "bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        values = {name: _defined(value) for name, value in zip(SUMMARY, evaluator.stats, strict=True)}
        if self.per_class:
            precision = evaluator.eval["precision"]  # [threshold, recall, class by id, area, most detections]
            for name, number in zip(self.names, self.ids, strict=True):
                own = precision[:, :, evaluator.params.catIds.index(number), 0, -1]
                own = own[own > -1]
                values[f"map/{name}"] = float(np.mean(own)) if own.size else math.nan
        return values

    def _truth(self) -> COCO:
        rows = []
        for image, (truth, _) in enumerate(self.images):
            columns = (_xywh(truth.boxes).tolist(), truth.labels.tolist(), truth.crowd.tolist(), truth.areas.tolist())
            for box, label, crowd, area in zip(*columns, strict=True):
                rows.append(self._row(image, label, box) | {"iscrowd": int(crowd), "area": area})
        return self._coco(rows)

    def _found(self) -> COCO:
        rows = []
        for image, (_, found) in enumerate(self.images):
            columns = (_xywh(found.boxes).tolist(), found.labels.tolist(), found.scores.tolist())
            for box, label, score in zip(*columns, strict=True):
                rows.append(self._row(image, label, box) | {"score": score, "area": box[2] * box[3], "iscrowd": 0})
        return self._coco(rows)

    def _row(self, image: int, label: int, box: list[float]) -> dict[str, Any]:
        return {"image_id": image, "category_id": self.ids[label], "bbox": box}

    def _coco(self, rows: list[dict[str, Any]]) -> COCO:
        # pycocotools takes the id 0 for "not matched".
        annotations = [row | {"id": number} for number, row in enumerate(rows, start=1)]
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(self.images))],
            "categories": [{"id": number} for number in self.ids],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco


def _copy(tensor: Tensor) -> np.ndarray:
    """As an array of its own: a tensor from a worker process holds a file descriptor for as long as it lives."""
    return tensor.numpy().copy()


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 to COCO's x, y, width, height, float64 [N, 4]: as the task writes result files."""
    corners = boxes.astype(np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _defined(value: float) -> float:
    """pycocotools' -1, for "nothing to measure", as NaN."""
    return math.nan if value == -1 else float(value)
