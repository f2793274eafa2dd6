"""The regression task: which values to learn, in which space, and their statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftengine.errors import DataError, FtengineError, name_list, unknown
from ftengine.protocols import Dataset, Encoder, Prediction, Target, Task, TaskContext
from ftengine_regression.options import TaskOptions

LOWER_LIMIT = {"none": -np.inf, "log": 0.0, "log1p": -1.0}
"""A value must lie above this to have its transform."""

STRATA = 10
MIN_STRATUM = 2


class Regression(Task):
    """One or several numbers for each image (field ``values``).

    After `fit` or `load_state`: `names`, the targets in order; `transforms`, for each ``none``, ``log`` or
    ``log1p``; `mean` and `std`, float64 [T], of the transformed targets over the training split (0 and 1 where
    the option `standardize` is off; std is the population's).
    """

    names: tuple[str, ...]
    transforms: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    def __init__(self, options: TaskOptions, context: TaskContext) -> None:
        self.options = options
        self.field = context.field

    def fit(self, data: Dataset) -> None:
        names = self._choose(data, "train")
        transforms = self._transforms(names)
        values = self._read(data, "train", names, transforms)
        for name, column in zip(names, values.T, strict=True):
            if column.min() == column.max():
                raise DataError(
                    f"train: target {name!r} is {column[0]:g} in every sample; expected values that vary, "
                    "since a constant cannot be learned from images"
                )
        space = np.stack([_transformed(column, kind) for column, kind in zip(values.T, transforms, strict=True)])
        self.names = names
        self.transforms = transforms
        standardize = self.options.standardize
        self.mean = space.mean(axis=1) if standardize else np.zeros(len(names))
        self.std = space.std(axis=1) if standardize else np.ones(len(names))

    def state(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "transforms": list(self.transforms),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.names = tuple(state["names"])
        self.transforms = tuple(state["transforms"])
        self.mean = np.array(state["mean"], dtype=np.float64)
        self.std = np.array(state["std"], dtype=np.float64)

    def encoder(self, data: Dataset, place: str) -> Encoder:
        """``{"values": float32 [T]}``, in original units and the order of `names`."""
        self._read(data, place, self.names, self.transforms)
        return ValuesEncoder(_columns(data, place, self.names))

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """Each target's value by name."""
        return dict(zip(self.names, prediction["values"].tolist(), strict=True))

    def perfect(self, encoded: Mapping[str, np.ndarray]) -> Prediction:
        """The values themselves."""
        return {"values": torch.from_numpy(encoded["values"].copy())}

    def strata(self, data: Dataset) -> np.ndarray | None:
        """The decile of the first target; None with fewer than 20 samples."""
        if len(data) < STRATA * MIN_STRATUM:
            return None
        names = self._choose(data, "train")
        first = self._read(data, "train", names, self._transforms(names))[:, 0]
        edges = np.unique(np.quantile(first, np.arange(1, STRATA) / STRATA))
        return np.asarray(np.digitize(first, edges), dtype=np.int64)

    def _choose(self, data: Dataset, place: str) -> tuple[str, ...]:
        if self.field not in data.names:
            raise DataError(
                f"{place}: the data have no target field {self.field!r}; they have: {name_list(data.names)}"
            )
        names = tuple(data.names[self.field] if self.options.targets is None else self.options.targets)
        if not names:
            raise DataError(f"{place}: the data name no values to learn")
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DataError(f"{place}: targets given more than once: {name_list(twice)}")
        return names

    def _transforms(self, names: tuple[str, ...]) -> tuple[str, ...]:
        given = self.options.transform
        if isinstance(given, str):
            return (given,) * len(names)
        for name in given:
            if name not in names:
                raise FtengineError(f"regression: transform: {unknown('target', name, names)}")
        return tuple(given.get(name, "none") for name in names)

    def _read(self, data: Dataset, place: str, names: tuple[str, ...], transforms: tuple[str, ...]) -> np.ndarray:
        """The targets of all samples, checked: float64 [N, T], in original units."""
        columns = _columns(data, place, names)
        count = len(data.names[self.field])
        rows = []
        for i in range(len(data)):
            try:
                row = _numbers(data.target(i).get(self.field), count)[columns]
                for name, value, kind in zip(names, row, transforms, strict=True):
                    _check(name, float(value), kind)
            except ValueError as error:
                raise DataError(f"{place}: sample {data.sample_id(i)!r}: {error}") from None
            rows.append(row)
        if not rows:
            raise DataError(f"{place}: no samples")
        return np.stack(rows)


@dataclass(frozen=True)
class ValuesEncoder:
    """`columns`: for each target, its place in a split's ``values``."""

    columns: np.ndarray

    def __call__(self, target: Target) -> dict[str, np.ndarray]:
        return {"values": np.asarray(target["values"], dtype=np.float32)[self.columns]}


def _columns(data: Dataset, place: str, names: tuple[str, ...]) -> np.ndarray:
    known = tuple(data.names.get("values", ()))
    for name in names:
        if name not in known:
            raise DataError(f"{place}: {unknown('target', name, known)}")
    return np.array([known.index(name) for name in names], dtype=np.int64)


def _numbers(given: Any, count: int) -> np.ndarray:
    if given is None:
        raise ValueError(f"the values are missing; expected {count} number{'s' if count > 1 else ''}")
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"the values are {given!r}; expected numbers") from None
    if numbers.shape != (count,):
        raise ValueError(f"the values have the shape {list(numbers.shape)}; expected [{count}]")
    return numbers


def _check(name: str, value: float, kind: str) -> None:
    if not np.isfinite(value):
        raise ValueError(f"target {name!r} is {value}; expected a finite number")
    if value <= LOWER_LIMIT[kind]:
        hint = "; transform log1p allows zeros" if kind == "log" and value == 0 else ""
        raise ValueError(
            f"target {name!r} is {value:g}; transform {kind} needs values above {LOWER_LIMIT[kind]:g}{hint}"
        )


def _transformed(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "none":
        return values
    return np.asarray(np.log(values) if kind == "log" else np.log1p(values))
