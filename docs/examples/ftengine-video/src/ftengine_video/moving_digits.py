"""Clips that need no files: handwritten digits that move, and what is to be learnt is the direction."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ftengine.protocols import Dataset, DatasetContext
from ftengine_video.options import MovingDigitsOptions

DIRECTIONS = {
    4: ("right", "down", "left", "up"),
    8: ("right", "right down", "down", "left down", "left", "left up", "up", "right up"),
}


class MovingDigits(Dataset):
    """`count` clips, each of one digit on black that moves straight on, at a constant speed.

    A digit that leaves the frame comes back at the opposite edge, and it starts anywhere: so in each single frame every
    place is as probable for each direction, and only what changes between frames tells them apart. Which digit, where
    it starts, how fast and in which direction it moves follow from the options' seed and the index alone. With another
    `order` it is the same clip, but for the order of its frames.
    """

    def __init__(self, options: MovingDigitsOptions, context: DatasetContext) -> None:
        self.names = {"label": DIRECTIONS[options.directions]}
        self._options = options
        self._digits = load_digits().images.astype(np.float32) * (255 / 16)

    def __len__(self) -> int:
        return self._options.count

    def target(self, index: int) -> dict[str, Any]:
        # In turn, so that all classes have the same number of clips.
        return {"label": range(len(self))[index] % self._options.directions}

    def sample_id(self, index: int) -> str:
        """``clip-00000`` and so on."""
        return f"clip-{range(len(self))[index]:05d}"

    def size(self, index: int) -> tuple[int, int]:
        return self._options.size, self._options.size

    def image(self, index: int) -> np.ndarray:
        """uint8 [T, size, size, 3]."""
        options = self._options
        label = self.target(index)["label"]
        random = np.random.default_rng([options.seed, range(len(self))[index]])
        digit = Image.fromarray(self._digits[random.integers(len(self._digits))])
        ink = np.array(digit.resize((options.digit_size, options.digit_size), Image.Resampling.BILINEAR))
        angle = 2 * np.pi * label / options.directions
        step = random.uniform(*options.speed) * np.array([np.sin(angle), np.cos(angle)])
        start = random.uniform(0, options.size, 2)
        clip = np.zeros((options.frames, options.size, options.size), np.uint8)
        inside = np.arange(options.digit_size)
        times = {
            "forward": np.arange(options.frames),
            "shuffled": random.permutation(options.frames),
            "still": np.zeros(options.frames),
        }[options.order]
        for time, frame in zip(times, clip, strict=True):
            top, left = np.floor(start + time * step).astype(int)
            rows, columns = (top + inside) % options.size, (left + inside) % options.size
            frame[np.ix_(rows, columns)] = ink.round().clip(0, 255)
        return np.repeat(clip[..., None], 3, axis=-1)
