"""The lines of YOLO's label files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ftengine.errors import name_list
from ftengine_datasets.boxes import Boxes
from ftengine_datasets.report import Report


@dataclass
class Lines:
    """The lines of all label files, as columns; `index`: the place of each class by its number in the files."""

    index: dict[int, int]
    image: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    outlines: list[bool] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)

    def name(self, line: int) -> str:
        return f"{self.places[line][0]}:{self.places[line][1]}"

    def read(self, path: Path, image: int, name: str, report: Report) -> None:
        """The lines of `path`, the labels of image number `image`; what cannot be used is a problem."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            report.problem(f"{name}: cannot be read: {error}")
            return
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    self._add(line.split())
                except ValueError as error:
                    report.problem(f"{name}:{number}: {error}")
                else:
                    self.image.append(image)
                    self.places.append((name, number))

    def _add(self, cells: list[str]) -> None:
        outline = len(cells) >= 7 and len(cells) % 2 == 1
        if len(cells) != 5 and not outline:
            raise ValueError(
                f"has {len(cells)} numbers; expected class cx cy w h, or a class and an outline x1 y1 x2 …"
            )
        number, *values = map(_number, cells)
        if number not in self.index:
            raise ValueError(f"class {cells[0]} is not in `names` ({name_list(map(str, self.index))})")
        for cell, value in zip(cells[1:], values, strict=True):
            if not -1 <= value <= 2:
                raise ValueError(f"{cell} is not a fraction of the image's size")
        self.label.append(self.index[int(number)])
        self.outlines.append(outline)
        if outline:
            xs, ys = np.array(values[::2]), np.array(values[1::2])
            self.corners.append((xs.min(), ys.min(), xs.max(), ys.max()))
            # The shoelace formula.
            self.areas.append(abs(np.dot(xs, np.roll(ys, 1)) - np.dot(ys, np.roll(xs, 1))) / 2)
        else:
            x, y, w, h = values
            self.corners.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            self.areas.append(np.nan)

    def boxes(self, sizes: np.ndarray) -> Boxes:
        """All lines as boxes in pixels of images of `sizes`, int64 [N, 2]; an outline's area is its own."""
        image = np.array(self.image, np.int64)
        height, width = sizes[image].T
        return Boxes(
            image,
            np.array(self.corners, np.float64).reshape(-1, 4) * np.stack([width, height, width, height], 1),
            np.array(self.label, np.int64),
            np.zeros(len(image), bool),
            np.array(self.areas, np.float64) * (width * height),
        )


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{cell!r} is not a number") from None
