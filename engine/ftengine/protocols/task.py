"""How targets become tensors and predictions become answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ftengine.protocols.data import Dataset, Target

Prediction = dict[str, Tensor]
"""One image's prediction, on the CPU, in original image coordinates and original units."""


Targets = dict[str, Any]
"""One task's targets for a batch, by name: a tensor [B, …], or a list of B tensors where shapes differ (boxes)."""


@dataclass(frozen=True)
class TaskContext:
    """`field`: the target field to learn from, chosen among those that the task's spec and the dataset share."""

    field: str


@dataclass(frozen=True)
class Companions:
    """Samples that come together in training batches: `groups`, int [N], are theirs; about `count` of one at a time."""

    groups: np.ndarray
    count: int


class Task(ABC):
    """How one task's targets become tensors, and its predictions become answers.

    Life: made by its factory; `fit` on the training split (or `load_state` from a checkpoint, never both); then
    `encoder` once for each split. The state is plain JSON and is stored with the model::

        class Brightness(Task):
            def fit(self, data): self.names = tuple(data.names["values"])
            def state(self): return {"names": list(self.names)}
            def load_state(self, state): self.names = tuple(state["names"])
            def encoder(self, data, place): return self.encode
            def encode(self, target): return {"values": np.asarray(target["values"], np.float32)}
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
        called in worker processes, so it must pickle (a bound method or a small class does).

        An array that it calls ``mask``, [H, W], is filled up with 255 where a batch's tensor is larger than the image.
        """

    def collate(self, encoded: Sequence[Mapping[str, np.ndarray]]) -> Targets:
        """What the encoder returned for each sample of a batch, as the batch's targets: stacked to tensors [B, …].

        A task whose arrays differ in shape between samples overrides this. Called in worker processes.
        """
        return stack(encoded)

    def soften(self, targets: Targets) -> dict[str, Tensor]:
        """A batch's targets as probabilities, float [B, C] each, that may be mixed between images: class ids one-hot.

        Needed of a task whose spec names fields as `soft`. What comes back takes the place of the targets of that name.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot mix its targets")

    @abstractmethod
    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """A prediction as a flat row of strings and numbers, as `ftengine predict` writes it."""

    def records(self, prediction: Prediction, image_id: int) -> list[dict[str, Any]] | None:
        """A prediction as rows of a result file of the field's own format (COCO's), or None where there is none."""
        return None

    def index_map(self, prediction: Prediction) -> np.ndarray | None:
        """A prediction as a picture of class ids, uint8 [H, W], to be written as a PNG; None where it is none."""
        return None

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray | None:
        """A new image, uint8 [H', W', 3], that shows a person the prediction on `image`, the original, uint8 [H, W, 3].

        None where there is nothing to show. Of a clip `image` is its middle frame. See :mod:`ftengine.pictures` for the
        means.
        """
        return None

    def perfect(self, encoded: Mapping[str, np.ndarray]) -> Prediction:
        """The prediction that an encoded target asks for: drawn beside the model's. Needed where `draw` is.

        The conformance kit asks with it whether metrics rate what is right above what is not.
        """
        raise NotImplementedError(f"{type(self).__name__} draws predictions and has no method `perfect`")

    def strata(self, data: Dataset) -> np.ndarray | None:
        """An int for each sample whose distribution a held-out split should keep, or None for any split."""
        return None

    def companions(self, data: Dataset) -> Companions | None:
        """Which samples of the training split come together in a batch; None where chance may say.

        For a loss that compares samples of one class, of which a batch drawn from many classes has hardly two.
        """
        return None


def stack(encoded: Sequence[Mapping[str, np.ndarray]]) -> Targets:
    """Arrays of one name, which have the same shape in every sample, as one tensor [B, …]."""
    return {name: torch.from_numpy(np.stack([sample[name] for sample in encoded])) for name in encoded[0]}


class Encoder(Protocol):
    def __call__(self, target: Target) -> Mapping[str, np.ndarray]: ...
