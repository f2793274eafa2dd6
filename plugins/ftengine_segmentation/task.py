"""The segmentation task: class names to mask values, and masks back to names, ids and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftengine.errors import DataError, FtengineError, name_list
from ftengine.pictures import overlay
from ftengine.protocols import (
    IGNORE,
    MAX_CLASSES,
    Dataset,
    Encoder,
    LabelMap,
    Prediction,
    Target,
    Targets,
    Task,
    TaskContext,
)
from ftengine_segmentation.options import TaskOptions


class Segmentation(Task):
    """One class for each pixel (field ``mask``).

    After `fit` or `load_state`: `labels`, the class names with the files' own ids and ``ignore=255``; `pixels`, int64
    [C], the training pixels of each class, or None if they were not to be counted. Without counting, `fit` reads no
    mask: decoding all of them takes long.
    """

    labels: LabelMap
    pixels: np.ndarray | None

    def __init__(self, options: TaskOptions, context: TaskContext) -> None:
        self.field = context.field
        self.count_pixels = options.count_pixels

    def fit(self, data: Dataset) -> None:
        names, ids = _classes(data, self.field, "train")
        if len(data) == 0:
            raise DataError("train: no samples")
        self.labels = LabelMap(names, ids, ignore=IGNORE)
        self.pixels = _count(data, len(names), "train") if self.count_pixels else None

    def state(self) -> dict[str, Any]:
        return {
            "field": self.field,
            "names": list(self.labels.names),
            "ids": None if self.labels.ids is None else list(self.labels.ids),
            "pixels": None if self.pixels is None else self.pixels.tolist(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state["field"] != self.field:
            raise FtengineError(
                f"segmentation: the saved task was trained on the target field {state['field']!r}, "
                f"and this run's is {self.field!r}"
            )
        ids = state["ids"]
        self.labels = LabelMap(tuple(state["names"]), None if ids is None else tuple(ids), ignore=IGNORE)
        pixels = state["pixels"]
        self.pixels = None if pixels is None else np.array(pixels, dtype=np.int64)

    def encoder(self, data: Dataset, place: str) -> Encoder:
        """``{"mask": uint8 [H, W]}`` with the training split's class indices, and 255 where it was."""
        names, _ = _classes(data, self.field, place)
        index = self.labels.remap(names, place)
        return MaskEncoder(names, np.concatenate([index, np.full(256 - len(index), IGNORE)]).astype(np.uint8))

    def collate(self, encoded: Sequence[Mapping[str, np.ndarray]]) -> Targets:
        """``mask``: uint8 [B, H, W] if the masks have one size, else a list of B tensors, each [H, W]."""
        masks = [sample["mask"] for sample in encoded]
        if len({mask.shape for mask in masks}) == 1:
            return {"mask": torch.from_numpy(np.stack(masks))}
        return {"mask": [torch.from_numpy(np.ascontiguousarray(mask)) for mask in masks]}

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """``share(<class>)`` for every class: the part of the image's pixels it has, to 4 decimals."""
        mask = prediction["mask"]
        counts = np.bincount(mask.numpy().reshape(-1), minlength=len(self.labels))
        shares = (counts / mask.numel()).round(4).tolist()
        return {f"share({name})": share for name, share in zip(self.labels.names, shares, strict=True)}

    def index_map(self, prediction: Prediction) -> np.ndarray:
        """The mask with the files' own ids of the classes; with their indices, if an id is above 255."""
        mask = np.asarray(prediction["mask"].numpy(), dtype=np.uint8)
        ids = self.labels.ids
        if ids is None or not all(0 <= value <= 255 for value in ids):
            return mask
        return np.asarray(np.array(ids, dtype=np.uint8)[mask])

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        return overlay(image, prediction["mask"].numpy(), self.labels.names)

    def perfect(self, encoded: Mapping[str, np.ndarray]) -> Prediction:
        """The mask itself; where it is 255, nothing is drawn."""
        return {"mask": torch.from_numpy(np.ascontiguousarray(encoded["mask"]))}


@dataclass(frozen=True)
class MaskEncoder:
    """`names`: a split's classes. `table`, uint8 [256]: for each value in its masks the training split's index.

    A mask of another form, or with a value that is no class, is a ValueError.
    """

    names: tuple[str, ...]
    table: np.ndarray

    def __call__(self, target: Target) -> dict[str, np.ndarray]:
        return {"mask": self.table[_read(target["mask"], len(self.names))]}


def _read(mask: Any, classes: int) -> np.ndarray:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2:
        got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"mask is {got}; expected an array uint8 [height, width]")
    wrong = mask[(mask >= classes) & (mask != IGNORE)]
    if wrong.size:
        raise ValueError(
            f"mask holds {name_list(map(str, np.unique(wrong)))} in {wrong.size} of {mask.size} pixels; expected "
            f"class indices from 0 to {classes - 1}, or {IGNORE} for pixels to ignore"
        )
    return mask


def _classes(data: Dataset, field: str, place: str) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """The classes of a split and the files' own ids for them, checked."""
    if field not in data.names:
        raise DataError(f"{place}: the data have no target field {field!r}; they have: {name_list(data.names)}")
    names = tuple(data.names[field])
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"{place}: {field}: segmentation needs 2 to {MAX_CLASSES} classes, the background among them; found "
            f"{len(names)}: {name_list(names)}"
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{place}: {field}: class names given more than once: {name_list(twice)}")
    if field not in data.ids:
        return names, None
    ids = tuple(int(value) for value in data.ids[field])
    if len(ids) != len(names) or len(set(ids)) != len(ids):
        raise DataError(f"{place}: {field}: {len(names)} classes need as many different ids; found {list(ids)}")
    return names, ids


def _count(data: Dataset, classes: int, place: str) -> np.ndarray:
    """The pixels of each class in all masks, int64 [classes]; every mask that can be read is checked on the way."""
    counts = np.zeros(256, dtype=np.int64)
    for i in range(len(data)):
        if i in data.unreadable:
            continue
        try:
            mask = _read(data.mask(i), classes)
        except ValueError as error:
            raise DataError(f"{place}: sample {data.sample_id(i)!r}: {error}") from None
        counts += np.bincount(mask.reshape(-1), minlength=256)
    return counts[:classes]
