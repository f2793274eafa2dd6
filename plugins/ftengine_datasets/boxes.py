"""What the datasets of boxes share: the boxes of a split as arrays, what is checked of them, and the dataset itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ftengine.images import image_sizes, read_image
from ftengine.protocols import Dataset
from ftengine_datasets.report import Report

MIN_SIDE = 0.01
"""Boxes thinner than this, in pixels, have no area: in float32 their edges would fall together."""

ROUNDING = 0.05
"""What a box reaches beyond its image by no more than this, in pixels, is rounding: cut off without a note."""

UNKNOWN_SIZE = (1000, 1000)
"""Height and width of an image that cannot be read, where nothing states them: its classes still count, its boxes are
never used."""


@dataclass(frozen=True)
class Boxes:
    """The boxes of a split, M of them.

    `image`: int64 [M], the index of the image. `corners`: float64 [M, 4], x1 y1 x2 y2 in pixels. `labels`: int64 [M].
    `crowd`: bool [M]. `areas`: float64 [M], the object's square pixels; NaN where the files do not say.
    """

    image: np.ndarray
    corners: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def take(self, places: np.ndarray) -> Boxes:
        """Those at `places`, in that order (or where a mask is True)."""
        return Boxes(*(column[places] for column in vars(self).values()))


class BoxDataset(Dataset):
    """Images with boxes. `files`: their paths below `folder`; `sizes`: int64 [N, 2], (height, width) of each.

    `boxes` must be inside their images and have an area, as `mend` returns them.
    """

    def __init__(
        self,
        folder: Path,
        files: list[str],
        sizes: np.ndarray,
        boxes: Boxes,
        classes: tuple[str, ...],
        *,
        ids: tuple[int, ...] | None = None,
        notes: Sequence[str] = (),
        unreadable: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self.names = {"boxes": classes}
        self.ids: Mapping[str, tuple[int, ...]] = {} if ids is None else {"boxes": ids}
        self.notes = tuple(notes)
        self.unreadable = unreadable
        self._folder = folder
        self._files = files
        self._sizes = sizes
        self._boxes = boxes.take(np.argsort(boxes.image, kind="stable"))
        self._first = np.searchsorted(self._boxes.image, np.arange(len(files) + 1))

    def __len__(self) -> int:
        return len(self._files)

    def target(self, index: int) -> dict[str, Any]:
        # Copies, because whoever gets a target may change it.
        own = slice(self._first[index], self._first[index + 1])
        return {
            "boxes": self._boxes.corners[own].copy(),
            "box_labels": self._boxes.labels[own].copy(),
            "box_crowd": self._boxes.crowd[own].copy(),
            "box_areas": self._boxes.areas[own].copy(),
        }

    def image(self, index: int) -> np.ndarray:
        return read_image(self._folder / self._files[index])

    def sample_id(self, index: int) -> str:
        """The image's path below the data root."""
        return self._files[index]

    def size(self, index: int) -> tuple[int, int]:
        height, width = self._sizes[index]
        return int(height), int(width)


def real_sizes(
    paths: Sequence[Path | None],
    stated: np.ndarray,
    name: Callable[[int], str],
    report: Report,
    *,
    verify: bool,
    unreadable: dict[int, str] | None = None,
) -> np.ndarray:
    """(height, width) of each image, upright: int64 [N, 2], (0, 0) where there is none to be had.

    `stated` is what the annotations say, likewise, (0, 0) where they do not. An image that cannot be read, and one
    whose size is another than stated, is a problem; with `unreadable`, the first kind is put there instead, and what
    is stated is believed of it (else UNKNOWN_SIZE). Without `verify`, what is stated is believed of all. A path that is
    None has been reported already.
    """
    lost = np.array([path is None for path in paths], bool)
    sizes = np.where(lost[:, None], 0, stated)
    unread = ~lost & (verify | (stated <= 0).any(1))
    unknown = [(index, path) for index, path in enumerate(paths) if path is not None and unread[index]]
    for (index, path), found in zip(unknown, image_sizes([path for _, path in unknown]), strict=True):
        if isinstance(found, str):
            if unreadable is not None:
                unreadable[index] = f"cannot read image {path}: {found}"
                if (stated[index] <= 0).any():
                    sizes[index] = UNKNOWN_SIZE
                continue
            report.problem(f"{name(index)}: cannot read image {path}: {found}")
            sizes[index] = 0
        else:
            sizes[index] = found
    wrong = np.flatnonzero((stated > 0).all(1) & (sizes > 0).all(1) & (sizes != stated).any(1))
    report.problems(wrong, lambda i: f"{name(i)}: {_another_size(stated[i], sizes[i])}")
    return sizes


def mend(boxes: Boxes, sizes: np.ndarray, name: Callable[[int], str], report: Report) -> Boxes:
    """`boxes` as the protocol wants them: inside their images, each with an area, and with `areas` complete.

    Repaired and noted: a box without area is dropped, one that reaches beyond its image is cut off there, an object's
    area that is not above 0 becomes its box's. A problem, since nobody can tell what was meant: a number that is not
    finite, a second corner above or left of the first, a box wholly outside of its image. `sizes`: int64 [N, 2],
    (height, width) by image; images of size (0, 0) are unknown, and their boxes go unchecked. `name` names a box.
    """
    x1, y1, x2, y2 = boxes.corners.T
    height, width = sizes[boxes.image].T
    known = height > 0
    with np.errstate(invalid="ignore"):
        broken = ~np.isfinite(boxes.corners).all(1)
        turned = ~broken & ((x2 < x1) | (y2 < y1))
        whole = ~broken & ~turned
        flat = whole & ((x2 - x1 < MIN_SIDE) | (y2 - y1 < MIN_SIDE))
        inside = np.clip(boxes.corners, 0, np.stack([width, height, width, height], 1))
        left = (inside[:, 2:] - inside[:, :2]).min(1, initial=np.inf)
        outside = whole & known & ~flat & (left < MIN_SIDE)
        excess = np.abs(boxes.corners - inside).max(1, initial=0)
        cut = whole & known & ~flat & ~outside & (excess > ROUNDING)
        worthless = whole & (boxes.areas <= 0) & ~flat

    def shown(box: int) -> str:
        return f"({', '.join(f'{value:g}' for value in boxes.corners[box])}) as x1, y1, x2, y2"

    report.problems(np.flatnonzero(broken), lambda m: f"{name(m)}: box {shown(m)} is not finite")
    report.problems(np.flatnonzero(turned), lambda m: f"{name(m)}: box {shown(m)} ends before it begins")
    report.problems(
        np.flatnonzero(outside),
        lambda m: f"{name(m)}: box {shown(m)} is outside of its image, {width[m]}×{height[m]} pixels",
    )
    report.repaired(np.flatnonzero(flat), name, "box without area was dropped", "boxes without area were dropped")
    report.repaired(
        np.flatnonzero(cut),
        name,
        "box that reached beyond its image was cut off there",
        "boxes that reached beyond their images were cut off there",
    )
    report.repaired(
        np.flatnonzero(worthless),
        name,
        "object's area that was not above 0 became its box's",
        "objects' areas that were not above 0 became their boxes'",
    )
    inside_area = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    areas = np.where(boxes.areas > 0, boxes.areas, inside_area)
    areas = np.where(cut, np.minimum(areas, inside_area), areas)
    return Boxes(boxes.image, inside, boxes.labels, boxes.crowd, areas).take(whole & known & ~flat & ~outside)


def _another_size(stated: np.ndarray, real: np.ndarray) -> str:
    text = f"states {stated[1]}×{stated[0]} pixels (width × height), but its image has {real[1]}×{real[0]}"
    hint = "; does the image have an EXIF orientation that the annotation did not follow?"
    return text + hint if (stated == real[::-1]).all() else text
