"""The `masks` dataset: a picture of classes for each image.

A mask is called as its image is (``images/1.jpg``, ``masks/1.png``; subfolders alike), has its size, and holds for each
pixel the value or the colour of its class. Values are those in the file: of a palette picture the indices.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ftengine.errors import DataError, nearest
from ftengine.images import find_images, image_sizes, read_image, read_mask
from ftengine.protocols import IGNORE, Dataset, DatasetContext
from ftengine_datasets.annotation_options import MaskOptions
from ftengine_datasets.paths import data_root, locate, require
from ftengine_datasets.report import Report

SHOWN_VALUES = 6


class ValueMap:
    """From what stands in mask files to classes: `values`, integers or colours, by class; `ignored` become IGNORE."""

    def __init__(self, values: Sequence[Any], ignored: Sequence[Any]) -> None:
        self.colours = isinstance(values[0], tuple)
        keys = np.array([_packed(value) if self.colours else value for value in (*values, *ignored)], np.int32)
        classes = np.array([*range(len(values)), *(IGNORE for _ in ignored)], np.int16)
        if self.colours:
            order = np.argsort(keys)
            self._keys, self._classes = keys[order], classes[order]
        else:
            self._classes = np.full(65536, -1, np.int16)
            self._classes[keys] = classes

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """The mask that `raw`, as `read_mask` returned it, stands for: uint8 [H, W]; ValueError for other values."""
        if self.colours != (raw.ndim == 3):
            has, wanted = ("colours", "values") if raw.ndim == 3 else ("values", "colours")
            raise ValueError(f"holds {has}, but `classes` gives {wanted}")
        if self.colours:
            raw = _packed(raw)
            place = np.searchsorted(self._keys, raw).clip(max=len(self._keys) - 1)
            classes = np.where(self._keys[place] == raw, self._classes[place], -1)
        else:
            classes = self._classes[raw]
        if classes.min() < 0:
            raise ValueError(self._complaint(raw[classes < 0]))
        return classes.astype(np.uint8)

    def _complaint(self, others: np.ndarray) -> str:
        keys, counts = np.unique(others, return_counts=True)
        shown = [self._shown(int(key)) for key in keys[np.argsort(-counts, kind="stable")][:SHOWN_VALUES]]
        more = f", … (+{len(keys) - SHOWN_VALUES})" if len(keys) > SHOWN_VALUES else ""
        what = ("colour" if self.colours else "value") + ("s" if len(keys) > 1 else "")
        return f"{what} {', '.join(shown)}{more} in {len(others)} pixels, outside of `classes` and `ignore`"

    def _shown(self, key: int) -> str:
        return f"({key >> 16}, {key >> 8 & 255}, {key & 255})" if self.colours else str(key)


class MaskDataset(Dataset):
    """Images with masks: `images` below `folder`, `masks` below `mask_folder`, in the same order.

    `sizes`: (height, width) of each image, None where they have not been read.
    """

    def __init__(
        self,
        folder: Path,
        images: list[str],
        mask_folder: Path,
        masks: list[str],
        sizes: np.ndarray | None,
        options: MaskOptions,
    ) -> None:
        values = tuple(options.values.values())
        self.names = {"mask": tuple(options.values)}
        # Results are written as pictures of 8 bits.
        self.ids = {"mask": values} if all(isinstance(value, int) and value < 256 for value in values) else {}
        self._folder = folder
        self._images = images
        self._mask_folder = mask_folder
        self._masks = masks
        self._sizes = sizes
        self._map = ValueMap(values, options.ignored)
        self._checksums: dict[int, int] = {}  # of the masks that have been checked
        self.seen_class = False  # in any of them

    def __len__(self) -> int:
        return len(self._images)

    def target(self, index: int) -> dict[str, Any]:
        """A checksum of the mask, where it has been checked, by which a resumed run sees that it has changed."""
        return {"mask_checksum": self._checksums[index]} if index in self._checksums else {}

    def image(self, index: int) -> np.ndarray:
        return read_image(self._folder / self._images[index])

    def mask(self, index: int) -> np.ndarray:
        path = self._mask_folder / self._masks[index]
        try:
            return self._map(read_mask(path))
        except ValueError as error:
            raise DataError(f"mask {path}: {error}") from error

    def sample_id(self, index: int) -> str:
        """The image's path below the data root."""
        return self._images[index]

    def size(self, index: int) -> tuple[int, int] | None:
        if self._sizes is None:
            return None
        height, width = self._sizes[index]
        return (int(height), int(width)) if height else None

    def mask_problem(self, index: int) -> str | None:
        """What is wrong with mask `index`; of an image that could not be read it is its values alone."""
        try:
            mask = self.mask(index)
        except DataError as error:
            return str(error)
        self._checksums[index] = zlib.crc32(mask.tobytes())
        if (mask != IGNORE).any():
            self.seen_class = True
        size = self.size(index)
        if size in (None, mask.shape):
            return None
        (height, width), (rows, columns) = mask.shape, size
        return f"mask {self._masks[index]} has {width}×{height} pixels, its image {columns}×{rows}"


def masks(options: MaskOptions, context: DatasetContext) -> MaskDataset:
    """The split that `context` names; images are sorted by path.

    Raises DataError for a missing folder, and, with all cases, for an image without mask and the other way round, and,
    with `verify`, for what cannot be read, a mask of another size than its image, and a value outside the classes.
    """
    part = getattr(options, context.split)
    folder, mask_folder = locate(options.root, part.images), locate(options.root, part.masks)
    require(folder, f"{context.split}: images", folder=True)
    require(mask_folder, f"{context.split}: masks", folder=True)
    report = Report(context.split, mask_folder)
    pairs = _pairs(folder, mask_folder, options.mask_suffix, report)
    report.check()
    unreadable: dict[int, str] = {}
    sizes = _sizes([image for image, _ in pairs], unreadable) if options.verify else None
    root, mask_root = data_root(options.root, folder), data_root(options.root, mask_folder)
    data = MaskDataset(
        root,
        [image.relative_to(root).as_posix() for image, _ in pairs],
        mask_root,
        [mask.relative_to(mask_root).as_posix() for _, mask in pairs],
        sizes,
        options,
    )
    if options.verify:
        with ThreadPoolExecutor(max_workers=8) as pool:
            found = enumerate(pool.map(data.mask_problem, range(len(data))))
            problems = {index: problem for index, problem in found if problem is not None}
        if context.tolerant:
            data.unreadable = {**problems, **unreadable}
        else:
            for problem in (*unreadable.values(), *problems.values()):
                report.problem(problem)
            report.check()
        if not data.seen_class:
            raise DataError(f"{context.split}: {mask_folder}: no pixel of any mask has a class; all are ignored")
    return data


def _pairs(folder: Path, mask_folder: Path, suffix: str, report: Report) -> list[tuple[Path, Path]]:
    """Each image with its mask."""
    same = os.path.normpath(folder) == os.path.normpath(mask_folder)
    if same and not suffix:
        raise DataError(f"images and masks are both in {folder}: `mask_suffix` must say how masks are called")
    found: dict[str, Path] = {}
    for mask in find_images(mask_folder):
        stem = _stem(mask, mask_folder)
        if stem.endswith(suffix):
            first = found.setdefault(stem, mask)
            if first != mask:
                report.problem(f"{first.name} and {mask.name} are both the mask of one image")
        elif not same:
            report.problem(f"mask {mask.name} is not called as `mask_suffix` {suffix!r} says")
    owners: dict[Path, Path] = {}
    for image in find_images(folder):
        stem = _stem(image, folder)
        if same and stem.endswith(suffix):
            continue
        own = found.get(stem + suffix)
        if own is None:
            near = nearest(stem + suffix, found)
            hint = f"; did you mean {found[near].name}?" if near else ""
            report.problem(f"no mask {stem}{suffix}.png for image {image.name}{hint}")
        elif own in owners:
            report.problem(f"{owners[own].name} and {image.name} are both the image of mask {own.name}")
        else:
            owners[own] = image
    for mask in found.values():
        if mask not in owners:
            report.problem(f"mask {mask.name}: its image is missing in {folder}")
    if not owners:
        report.problem(f"there are no images in {folder}")
    return [(image, mask) for mask, image in owners.items()]


def _sizes(paths: list[Path], unreadable: dict[int, str]) -> np.ndarray:
    """(height, width) of each image: int64 [N, 2], 0 where it cannot be read, and why that is in `unreadable`."""
    sizes = np.zeros((len(paths), 2), np.int64)
    for index, size in enumerate(image_sizes(paths)):
        if isinstance(size, str):
            unreadable[index] = f"cannot read image {paths[index]}: {size}"
        else:
            sizes[index] = size
    return sizes


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _packed(colours: Any) -> np.ndarray:
    """Colours, [..., 3], as one number each: int32 [...]."""
    red, green, blue = np.moveaxis(np.asarray(colours, np.int32), -1, 0)
    return red << 16 | green << 8 | blue
