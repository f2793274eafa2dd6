"""Where an image lies in its batch, and the way back to the pixels of its file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Frame:
    """The place of one image in a batch; all in pixels.

    `original` is (height, width) of the image as it was read. `size`, (height, width), is the part of the batch's
    tensor that is this image's, from the upper left corner; what lies beyond it fills the batch up. `content`, (top,
    left, height, width), is where the whole of the original image lies: within `size`, or, where the image was
    cropped, beyond it.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    content: tuple[float, float, float, float]

    @classmethod
    def whole(cls, height: int, width: int) -> Frame:
        """The frame of an image that is in the batch as it was read."""
        return cls((height, width), (height, width), (0.0, 0.0, float(height), float(width)))

    def to_original(self, boxes: Tensor) -> Tensor:
        """Boxes in the batch's pixels, float [N, 4] as x1 y1 x2 y2, in those of the original, cut off at its edges."""
        top, left, height, width = self.content
        rows, columns = self.original
        offset = boxes.new_tensor([left, top, left, top])
        scale = boxes.new_tensor([columns / width, rows / height] * 2)
        limit = boxes.new_tensor([columns, rows] * 2)
        return torch.minimum(((boxes - offset) * scale).clamp(min=0), limit)

    def restore(self, maps: Tensor) -> Tensor:
        """A map of the whole tensor, float [C, H, W], as one of the original image: float [C, *original].

        Bilinear. The original must lie within the tensor: what was cropped away has no values.
        """
        top, left, height, width = (round(value) for value in self.content)
        if top < 0 or left < 0 or top + height > maps.shape[-2] or left + width > maps.shape[-1]:
            raise ValueError(f"a cropped image ({self}) has no map of its whole")
        part = maps[None, :, top : top + height, left : left + width]
        return functional.interpolate(part, size=self.original, mode="bilinear", align_corners=False)[0]
