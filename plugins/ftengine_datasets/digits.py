"""The `digits` dataset: handwritten digits of 8×8 pixels, embedded in scikit-learn.

They are the test part of the *Optical Recognition of Handwritten Digits* set (Alpaydin and Kaynak, UCI Machine
Learning Repository, 1998).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from ftengine.protocols import Dataset, DatasetContext
from ftengine_datasets.options import DigitsOptions
from ftengine_datasets.scenes import Scenes


class Digits(Dataset):
    """`pixels`: float [N, 8, 8] in 0..16; `digits`: int [N] in 0..9; `targets` as in DigitsOptions."""

    def __init__(self, pixels: np.ndarray, digits: np.ndarray, targets: tuple[str, ...]) -> None:
        self.names = {"label": tuple("0123456789"), "values": targets}
        self._pixels = np.rint(pixels * (255 / 16)).astype(np.uint8)
        self._digits = digits
        values = {"value": digits, "ink": pixels.mean((1, 2)) / 16}
        self._values = np.stack([values[name] for name in targets], axis=-1).astype(np.float32)

    def __len__(self) -> int:
        return len(self._digits)

    def target(self, index: int) -> dict[str, Any]:
        return {"label": int(self._digits[index]), "values": self._values[index].copy()}

    def image(self, index: int) -> np.ndarray:
        return np.repeat(self._pixels[index, :, :, None], 3, axis=-1)

    def sample_id(self, index: int) -> str:
        """``digit-0000`` and so on, in scikit-learn's order."""
        return f"digit-{index:04d}"


def digits(options: DigitsOptions, context: DatasetContext) -> Dataset:
    """All 1797 digits, or the scenes of `options.scenes`; the first `options.limit` of them.

    The engine holds other splits than the training split out.
    """
    data = load_digits()
    if options.scenes is not None:
        return Scenes(data.images, data.target, options.scenes, options.limit)
    return Digits(data.images[: options.limit], data.target[: options.limit], options.targets)
