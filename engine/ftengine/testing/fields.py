"""Whether a target field is what the vocabulary says of it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ftengine.protocols import IGNORE
from ftengine.testing.same import kind

FieldCheck = Callable[[Any, Mapping[str, Any], Sequence[str], tuple[int, ...]], None]
"""Takes the value of a field, the whole target, the field's names, and (height, width) of the image."""


def _label(value: Any, target: Mapping[str, Any], names: Sequence[str], size: tuple[int, ...]) -> None:
    try:
        label = operator.index(value)
    except TypeError:
        raise ValueError(f"{value!r}, which is no int") from None
    if not 0 <= label < len(names):
        raise ValueError(f"{label}, outside of its {len(names)} names")


def _labels(value: Any, target: Mapping[str, Any], names: Sequence[str], size: tuple[int, ...]) -> None:
    _array(value, "float32", (len(names),))
    if not np.isin(value, (0, 1)).all():
        raise ValueError(f"{value[~np.isin(value, (0, 1))][0]}, neither 0 nor 1")


def _values(value: Any, target: Mapping[str, Any], names: Sequence[str], size: tuple[int, ...]) -> None:
    _array(value, "float32", (len(names),))
    if not np.isfinite(value).all():
        raise ValueError(f"{value.tolist()}, which is not finite")


def _boxes(value: Any, target: Mapping[str, Any], names: Sequence[str], size: tuple[int, ...]) -> None:
    count = len(value) if isinstance(value, np.ndarray) and value.ndim else 0
    _array(value, "float64", (count, 4))
    for name, dtype in (("box_labels", "int64"), ("box_crowd", "bool"), ("box_areas", "float64")):
        if name not in target:
            raise ValueError(f"no `{name}` beside them")
        _array(target[name], dtype, (count,), f"`{name}` is ")
    height, width = size
    x1, y1, x2, y2 = value.T
    for what, wrong in (
        ("without x1 < x2 and y1 < y2", ~((x1 < x2) & (y1 < y2))),
        (f"outside of its image of {width}×{height} pixels", ~((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height))),
    ):
        if wrong.any():
            raise ValueError(f"a box {value[wrong][0].tolist()} {what}")
    labels, areas = target["box_labels"], target["box_areas"]
    if count and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(f"`box_labels` from {labels.min()} to {labels.max()}, outside of its {len(names)} names")
    if not (areas >= 0).all():
        raise ValueError(f"an area of {areas[~(areas >= 0)][0]:g} square pixels")


def _mask(value: Any, target: Mapping[str, Any], names: Sequence[str], size: tuple[int, ...]) -> None:
    _array(value, "uint8", size)
    others = np.unique(value[(value >= len(names)) & (value != IGNORE)])
    if others.size:
        raise ValueError(f"{others[0]}, which is neither one of its {len(names)} names nor {IGNORE}")


def _array(value: Any, dtype: str, shape: tuple[int, ...], what: str = "") -> None:
    if not isinstance(value, np.ndarray) or str(value.dtype) != dtype or value.shape != shape:
        raise ValueError(f"{what}{kind(value)} where array {dtype} {list(shape)} is due")


FIELD_CHECKS: dict[str, FieldCheck] = {
    "label": _label,
    "labels": _labels,
    "values": _values,
    "boxes": _boxes,
    "mask": _mask,
}
"""For each field of :data:`ftengine.protocols.TARGET_FIELDS` what raises ValueError, saying what it is instead."""
