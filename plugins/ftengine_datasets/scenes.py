"""Scenes: several handwritten digits in one picture, with their boxes, their pixels, what they are, their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ftengine.protocols import Dataset
from ftengine_datasets.options import SceneOptions

COUNTS, LAYOUT, PIXELS, DECK = range(4)
"""What a random generator is for, the first part of its seed."""

INK = 0.4
"""A pixel of at least this intensity, in 0..1, belongs to the digit."""

TRIES = 40
"""So many places are tried for a digit before the one that hides the least of the others is taken."""


@dataclass(frozen=True)
class Placed:
    """A digit in a scene: its `label`, its `ink`, float32 [h, w] in 0..1, cut to its pixels, and where that begins."""

    label: int
    ink: np.ndarray
    top: int
    left: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        height, width = self.ink.shape
        return self.left, self.top, self.left + width, self.top + height

    @property
    def area(self) -> tuple[slice, slice]:
        height, width = self.ink.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class Scenes(Dataset):
    """`pixels`: float [N, 8, 8] in 0..16, `digits`: int [N] in 0..9, from which the scenes are made.

    Each scene is a function of the options' seed and its index alone, and is made anew whenever it is asked for. The
    digits are dealt out like a shuffled deck of cards, so that none is in two scenes, and with it in two splits, until
    all are used up. A box reaches from a digit's first to its last pixel, also where another digit hides a part.
    """

    def __init__(self, pixels: np.ndarray, digits: np.ndarray, options: SceneOptions, limit: int | None = None) -> None:
        names = tuple("0123456789")
        self.names = {"boxes": names, "mask": ("background", *names), "values": ("count",), "labels": names}
        self._options = options
        self._pixels = (pixels / 16).astype(np.float32)
        self._digits = digits
        least, greatest = options.digits
        counts = self._random(COUNTS).integers(least, greatest + 1, options.count)[:limit]
        self._first = np.concatenate([[0], np.cumsum(counts)])
        decks = -(-self._first[-1] // len(digits))
        self._dealt = np.concatenate(
            [self._random(DECK, deck).permutation(len(digits)) for deck in range(max(decks, 1))]
        )

    def __len__(self) -> int:
        return len(self._first) - 1

    def target(self, index: int) -> dict[str, Any]:
        layout = self._layout(index)
        occurring = np.zeros(len(self.names["labels"]), np.float32)
        occurring[[digit.label for digit in layout]] = 1
        return {
            "boxes": np.array([digit.box for digit in layout], np.float64).reshape(-1, 4),
            "box_labels": np.array([digit.label for digit in layout], np.int64),
            "box_crowd": np.zeros(len(layout), bool),
            "box_areas": np.array([(digit.ink >= INK).sum() for digit in layout], np.float64),
            "values": np.array([len(layout)], np.float32),
            "labels": occurring,
        }

    def image(self, index: int) -> np.ndarray:
        """Bright digits on a dark ground, each of its own colour; both with noise."""
        random = self._random(PIXELS, index)
        side = self._options.size
        ground = Image.fromarray(random.integers(10, 110, (5, 5, 3), np.uint8))
        scene = np.array(ground.resize((side, side), Image.Resampling.BICUBIC), np.float32)
        for digit in self._layout(index):
            colour = random.uniform(140, 255, 3).astype(np.float32)
            cover = np.clip((digit.ink - INK) / 0.4 + 0.5, 0, 1)[..., None]
            scene[digit.area] += cover * (colour - scene[digit.area])
        scene += random.normal(0, 6, scene.shape).astype(np.float32)
        return np.clip(np.rint(scene), 0, 255).astype(np.uint8)

    def mask(self, index: int) -> np.ndarray:
        """0 is the ground, 1 the digit 0, and so on; later digits lie upon earlier ones."""
        mask = np.zeros((self._options.size, self._options.size), np.uint8)
        for digit in self._layout(index):
            mask[digit.area][digit.ink >= INK] = digit.label + 1
        return mask

    def sample_id(self, index: int) -> str:
        """``scene-0000`` and so on."""
        return f"scene-{index:04d}"

    def size(self, index: int) -> tuple[int, int]:
        return self._options.size, self._options.size

    def _layout(self, index: int) -> list[Placed]:
        """The digits of scene `index`, without their pixels being drawn."""
        random = self._random(LAYOUT, index)
        layout: list[Placed] = []
        taken = np.zeros((0, 4), np.int64)
        for source in self._dealt[self._first[index] : self._first[index + 1]]:
            least, greatest = self._options.digit_size
            ink = _enlarged(self._pixels[source], int(random.integers(least, greatest + 1)), self._options.size)
            free = self._options.size - np.array(ink.shape) + 1
            corners = random.integers(0, free, (TRIES, 2))
            top, left = corners[np.argmin(_overlap(corners, ink.shape, taken))]
            layout.append(Placed(int(self._digits[source]), ink, int(top), int(left)))
            taken = np.array([digit.box for digit in layout])
        return layout

    def _random(self, purpose: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng((purpose, self._options.seed, index))


def _enlarged(pixels: np.ndarray, height: int, most: int) -> np.ndarray:
    """A digit, float32 [8, 8], enlarged until what is left of it without its margins is about `height` pixels high.

    With its margins it is at most `most` pixels high and wide.
    """
    rows = np.flatnonzero((pixels >= INK).any(1))
    side = min(round(height * 8 / (rows[-1] - rows[0] + 1)), most)
    ink = np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    rows, columns = np.flatnonzero((ink >= INK).any(1)), np.flatnonzero((ink >= INK).any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _overlap(corners: np.ndarray, size: tuple[int, int], taken: np.ndarray) -> np.ndarray:
    """How many pixels of the boxes `taken`, [N, 4], one of `size` at each of `corners` (top, left), [T, 2], covers."""
    top_left = corners[:, None, ::-1]
    bottom_right = top_left + size[::-1]
    sides = np.minimum(bottom_right, taken[None, :, 2:]) - np.maximum(top_left, taken[None, :, :2])
    return sides.clip(0).prod(-1).sum(-1)
