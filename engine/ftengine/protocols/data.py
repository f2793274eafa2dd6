"""What a dataset gives: images, targets and the names behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ftengine.errors import DataError, name_list

Target = Mapping[str, Any]
"""One image's target fields, as plain Python and NumPy values."""


@dataclass(frozen=True)
class Sample:
    """One image with its target: `image` is uint8 [H, W, 3] RGB; `id` names it in messages and result files.

    Of a clip `image` is uint8 [T, H, W, 3]: its frames in order.
    """

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

    Where files call classes by numbers of their own (COCO's categories, the values in mask files), ``ids[field]`` has
    them in the order of ``names[field]``: results are written with them. `notes` are sentences on what was repaired
    while reading, and how often, for the person who starts the run. `unreadable` maps the samples of which it is known
    already that they cannot be read to why; only where the context is `tolerant`.
    """

    names: Mapping[str, tuple[str, ...]]
    ids: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    notes: Sequence[str] = ()
    unreadable: Mapping[int, str] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def target(self, index: int) -> Target:
        """The target fields of sample `index`; at least those in `names`, but for ``mask``, which `mask` reads."""

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """The image of sample `index`: uint8 [H, W, 3], RGB.

        Where the options' ``clip_frames()`` is a number T, it is a clip: uint8 [T, H, W, 3], for every sample.
        """

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """A name of sample `index` that a person can find it by, the same in every run."""

    def mask(self, index: int) -> np.ndarray:
        """The mask of sample `index`, uint8 [H, W] of its image's size; only where `names` has ``mask``."""
        raise NotImplementedError(f"{type(self).__name__} names the field 'mask' and has no method `mask`")

    def size(self, index: int) -> tuple[int, int] | None:
        """(height, width) of image `index`, of a clip's frames, if that is known without decoding it.

        Batches are made of like shapes.
        """
        return None

    def __getitem__(self, index: int) -> Sample:
        """Image and whole target, with the mask where there is one."""
        target = dict(self.target(index))
        if "mask" in self.names:
            target["mask"] = self.mask(index)
        return Sample(self.image(index), target, self.sample_id(index))


@dataclass(frozen=True)
class DatasetContext:
    """`split` is ``train``, ``val`` or ``test``: the factory returns that split as its options describe it.

    `tolerant`: samples that cannot be read are no error. The split holds them all the same, so that its order does not
    depend on them; ``Dataset.unreadable`` has those that the factory finds, and a run leaves them out.
    """

    split: str
    tolerant: bool = False


@dataclass(frozen=True)
class LabelMap:
    """Class names in index order: made once from the training split, stored with the model, checked ever after.

    `ids` are the files' own numbers for them, if they have any. `background` and `ignore` are indices with a special
    meaning, where a task has them.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] | None = None
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
