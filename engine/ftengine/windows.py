"""Images larger than a network was trained on, seen through overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ftengine.protocols import Batch, Frame, Output, Window

if TYPE_CHECKING:
    from ftengine.model import Model


@dataclass(frozen=True)
class Sliding:
    """Windows of `size`, (height, width), each of which shares at least the part `overlap` with the next."""

    size: tuple[int, int]
    overlap: float

    def needed(self, size: tuple[int, int]) -> bool:
        """Whether an image of `size` is larger than a window."""
        return size[0] > self.size[0] or size[1] > self.size[1]

    def windows(self, size: tuple[int, int]) -> list[Window]:
        """The windows that cover an image of `size`: evenly spread, from edge to edge."""
        rows, columns = (self._starts(size[axis], self.size[axis]) for axis in (0, 1))
        height, width = min(size[0], self.size[0]), min(size[1], self.size[1])
        return [Window(top, left, height, width) for top in rows for left in columns]

    def _starts(self, length: int, window: int) -> list[int]:
        if length <= window:
            return [0]
        count = math.ceil((length - window) / max(1.0, window * (1 - self.overlap))) + 1
        return [round(i * (length - window) / (count - 1)) for i in range(count)]

    def run(self, model: Model, images: Tensor, ids: list[str], tasks: Sequence[str]) -> dict[str, Output]:
        """The outputs of `tasks`' heads for normalised `images`, merged from those for the windows."""
        size = (images.shape[-2], images.shape[-1])
        windows = self.windows(size)
        outputs: dict[str, list[Output]] = {task: [] for task in tasks}
        for window in windows:
            part = images[..., window.top : window.top + window.height, window.left : window.left + window.width]
            features = model.backbone(part)
            view = Batch(part, {}, ids, [Frame.whole(window.height, window.width)] * len(ids))
            for task in tasks:
                outputs[task].append(model.heads[task](features, view))
        return {task: model.heads[task].merge(outputs[task], windows, size) for task in tasks}  # type: ignore[operator]
