"""What a dataset gives: images, targets and the names behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftengine.errors import DataError, name_list

TARGET_FIELDS = {
    "label": "int, the index of the image's one class in the dataset's names['label']",
    "labels": "float32 [C], 1 for each class of names['labels'] that the image has, else 0",
    "values": "float32 [T], one number for each of names['values'], in original units",
}
"""The vocabulary of target fields: what a dataset provides, and what a task can learn from."""

Target = Mapping[str, Any]
"""One image's target fields, as plain Python and NumPy values."""


@dataclass(frozen=True)
class Sample:
    """One image with its target: `image` is uint8 [H, W, 3] RGB; `id` names it in messages and result files."""

    image: np.ndarray
    target: Target
    id: str


class Dataset(ABC):
    """One split of labelled images: no tensors, no randomness, no augmentation.

    ``names[field]`` gives the class or value names behind a target field, in index order; a field that is not
    in `names` is not provided. Reading a target must not decode the image::

        class Constant(Dataset):
            names = {"label": ("dark", "light")}
            def __len__(self): return 2
            def target(self, index): return {"label": index}
            def sample_id(self, index): return f"constant-{index}"
            def image(self, index): return np.full((8, 8, 3), 255 * index, np.uint8)

    A broken file raises :class:`ftengine.errors.DataError` from `image`, with the file's name.
    """

    names: Mapping[str, tuple[str, ...]]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def target(self, index: int) -> Target:
        """The target fields of sample `index`; at least those in `names`."""

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """The image of sample `index`: uint8 [H, W, 3], RGB."""

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """A name of sample `index` that a person can find it by, the same in every run."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.image(index), self.target(index), self.sample_id(index))


@dataclass(frozen=True)
class DatasetContext:
    """`split` is ``train``, ``val`` or ``test``: the factory returns that split as its options describe it."""

    split: str


@dataclass(frozen=True)
class LabelMap:
    """Class names in index order: made once from the training split, stored with the model, checked ever after.

    `background` and `ignore` are indices with a special meaning, where a task has them.
    """

    names: tuple[str, ...]
    background: int | None = None
    ignore: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def remap(self, names: Sequence[str], place: str) -> np.ndarray:
        """For each of another split's `names`, its index here: int64 [len(names)].

        Raises DataError, naming `place`, for a name that this map lacks.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DataError(
                f"{place} has {'a class' if len(missing) == 1 else 'classes'} that the training split lacks: "
                f"{name_list(missing)}; the training split's classes: {name_list(self.names)}"
            )
        index = {name: i for i, name in enumerate(self.names)}
        return np.array([index[name] for name in names], dtype=np.int64)
