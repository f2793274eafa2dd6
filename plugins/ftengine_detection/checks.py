"""Whether one image's boxes are what the vocabulary of target fields says, whichever plugin's dataset they are from."""

from __future__ import annotations

import numpy as np

from ftengine.protocols import Target

BESIDE = ("box_labels", "box_crowd", "box_areas")


def check_target(target: Target, classes: int, size: tuple[int, int] | None) -> None:
    """Raises ValueError, with what was found and what was expected, for the first thing that is wrong.

    `classes` is the number of class names, `size` the image's (height, width) where it is known.
    """
    for name in ("boxes", *BESIDE):
        if name not in target:
            raise ValueError(f"its target has no {name!r}; it has: {', '.join(sorted(target)) or 'nothing'}")
    boxes = np.asarray(target["boxes"], np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes has the shape {list(boxes.shape)}; expected [N, 4]")
    for name in BESIDE:
        shape = np.shape(target[name])
        if shape != (len(boxes),):
            raise ValueError(f"{name} has the shape {list(shape)}; expected one value for each of {len(boxes)} boxes")
    _check_places(boxes, size)
    _check_labels(np.asarray(target["box_labels"]), classes)
    areas = np.asarray(target["box_areas"], np.float64)
    bad = ~np.isfinite(areas) | (areas < 0)
    if bad.any():
        raise ValueError(f"box_areas[{bad.argmax()}] is {areas[bad.argmax()]:g}; expected square pixels, at least 0")


def _check_places(boxes: np.ndarray, size: tuple[int, int] | None) -> None:
    height, width = size or (np.inf, np.inf)
    outside = (boxes[:, :2] < 0).any(1) | (boxes[:, 2:] > (width, height)).any(1)
    rules = (
        (~np.isfinite(boxes).all(1), "finite numbers"),
        ((boxes[:, 2:] <= boxes[:, :2]).any(1), "x1 < x2 and y1 < y2"),
        (outside, f"it inside the image ({width}x{height})"),
    )
    for bad, expected in rules:
        if bad.any():
            first = int(bad.argmax())
            place = ", ".join(f"{value:g}" for value in boxes[first])
            raise ValueError(f"boxes[{first}] is [{place}] as x1, y1, x2, y2; expected {expected}")


def _check_labels(labels: np.ndarray, classes: int) -> None:
    if labels.size == 0:
        return
    if labels.dtype.kind not in "iu":
        raise ValueError(f"box_labels is of the type {labels.dtype}; expected class indices, integers")
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(f"box_labels[{first}] is {labels[first]}; expected a class index from 0 to {classes - 1}")
