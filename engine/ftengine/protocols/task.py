"""How targets become tensors and predictions become answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ftengine.protocols.data import Dataset, Target

Prediction = dict[str, Tensor]
"""One image's prediction, on the CPU, in original image coordinates and original units."""


@dataclass(frozen=True)
class TaskContext:
    """`field`: the target field to learn from, chosen among those that the task's spec and the dataset share."""

    field: str


class Task(ABC):
    """How one task's targets become tensors, and its predictions become answers.

    Life: made by its factory; `fit` on the training split (or `load_state` from a checkpoint, never both); then
    `encoder` once for each split. The state is plain JSON and is stored with the model::

        class Brightness(Task):
            def fit(self, data): self.names = tuple(data.names["values"])
            def state(self): return {"names": list(self.names)}
            def load_state(self, state): self.names = tuple(state["names"])
            def encoder(self, data, place):
                return lambda target: {"values": np.asarray(target["values"], np.float32)}
            def describe(self, prediction):
                return dict(zip(self.names, prediction["values"].tolist()))
    """

    @abstractmethod
    def fit(self, data: Dataset) -> None:
        """Learn the schema (label map, statistics, …) from the training split, and check every target of it.

        Raises DataError that names the sample and what is wrong with it.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON data."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""

    @abstractmethod
    def encoder(self, data: Dataset, place: str) -> Encoder:
        """A function from one sample's target to named arrays, for a split with its own names.

        Checks that split against what was fitted; raises DataError that begins with `place`. The function is
        called in worker processes, so it must pickle (a bound method or a small class does). Arrays of one name
        have the same shape in every sample: the engine stacks them.
        """

    @abstractmethod
    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """A prediction as a flat row of strings and numbers, as `ftengine predict` writes it."""

    def strata(self, data: Dataset) -> np.ndarray | None:
        """An int for each sample whose distribution a held-out split should keep, or None for any split."""
        return None


class Encoder(Protocol):
    def __call__(self, target: Target) -> Mapping[str, np.ndarray]: ...
