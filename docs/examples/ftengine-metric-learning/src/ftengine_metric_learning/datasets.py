"""Datasets whose splits have classes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from ftengine.errors import DataError, name_list, unknown
from ftengine.images import EXTENSIONS, check_images, find_images, is_hidden, read_image
from ftengine.protocols import Dataset, DatasetContext
from ftengine_metric_learning.options import ClassOptions, DigitsOptions, FolderOptions


class ImageFolder(Dataset):
    """The images of some classes: `files` relative to `folder`, and the index of each one's class in `classes`."""

    def __init__(
        self,
        folder: Path,
        files: list[str],
        labels: np.ndarray,
        classes: tuple[str, ...],
        unreadable: Mapping[int, str],
    ) -> None:
        self.names = {"label": classes}
        self.unreadable = unreadable
        self._folder = folder
        self._files = files
        self._labels = labels

    def __len__(self) -> int:
        return len(self._files)

    def target(self, index: int) -> dict[str, Any]:
        return {"label": int(self._labels[index])}

    def image(self, index: int) -> np.ndarray:
        return read_image(self._folder / self._files[index])

    def sample_id(self, index: int) -> str:
        """``<class>/<file>``."""
        return self._files[index]


def folder(options: FolderOptions, context: DatasetContext) -> ImageFolder:
    """The classes of a split. Raises DataError for what is not there, and for unreadable images not tolerated."""
    path = (options.root.expanduser() / options.images.expanduser()).absolute()
    if not path.is_dir():
        raise DataError(f"images: {path} is no folder; expected one with a folder for each class")
    there = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not is_hidden(entry.name)))
    classes = classes_of(there, options, context.split)
    found = [find_images(path / name)[: options.limit] for name in classes]
    empty = [name for name, images in zip(classes, found, strict=True) if not images]
    if empty:
        raise DataError(f"images: no image ({', '.join(EXTENSIONS)}) in these folders of {path}: {name_list(empty)}")
    paths = [image for images in found for image in images]
    unreadable = check_images(paths, context.split, tolerant=context.tolerant) if options.verify else {}
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in found])
    return ImageFolder(path, [image.relative_to(path).as_posix() for image in paths], labels, classes, unreadable)


class Digits(Dataset):
    """`pixels`: uint8 [N, 8, W]; `labels`: int [N], indices in `classes`; `numbers`: each one's in the whole set."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], numbers: np.ndarray) -> None:
        self.names = {"label": classes}
        self._pixels = pixels
        self._labels = labels
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._labels)

    def target(self, index: int) -> dict[str, Any]:
        return {"label": int(self._labels[index])}

    def image(self, index: int) -> np.ndarray:
        return np.repeat(self._pixels[index, :, :, None], 3, axis=-1)

    def sample_id(self, index: int) -> str:
        """``digits-0000`` and so on, by the number in the whole set."""
        return f"digits-{self._numbers[index]:04d}"


def digits(options: DigitsOptions, context: DatasetContext) -> Digits:
    """The classes of a split, of 1797 images of one digit, or of two: image i has the i-th digit on its left."""
    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    values = data.target
    if options.length == 2:
        right = np.random.default_rng(options.seed).permutation(len(pixels))
        pixels = np.concatenate([pixels, pixels[right]], axis=2)
        values = 10 * values + values[right]
    names = [f"{value:0{options.length}d}" for value in range(10**options.length)]
    classes = classes_of(tuple(names), options, context.split)
    numbers = [np.flatnonzero(values == names.index(name))[: options.limit] for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(own) for own in numbers])
    chosen = np.concatenate(numbers)
    return Digits(pixels[chosen], labels, classes, chosen)


def classes_of(there: tuple[str, ...], options: ClassOptions, split: str) -> tuple[str, ...]:
    """The classes of `split`, in the order of those that are `there`. Raises DataError for one that is not."""
    taken: dict[str, tuple[str, ...]] = {}
    for which in ("train", "val", "test"):
        value = getattr(options, which)
        if isinstance(value, tuple):
            for name in value:
                if name not in there:
                    raise DataError(f"{which}: {unknown('class', name, there)}")
            taken[which] = value
    named = {name for names in taken.values() for name in names}
    left = [name for name in there if name not in named]
    drawn = [left[index] for index in np.random.default_rng(options.split_seed).permutation(len(left))]
    for which in ("val", "test"):
        value = getattr(options, which)
        if isinstance(value, float):
            count = round(value * len(there))
            if not 0 < count <= len(drawn):
                raise DataError(
                    f"{which}: {value:g} of {len(there)} classes is {count}, and {len(drawn)} are left to take it from"
                )
            taken[which], drawn = tuple(drawn[:count]), drawn[count:]
    taken.setdefault("train", tuple(drawn))
    if not taken["train"]:
        raise DataError(f"train: no class is left of {name_list(there) or 'none'}")
    return tuple(name for name in there if name in taken[split])
