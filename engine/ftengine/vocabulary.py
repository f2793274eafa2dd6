"""Words that configs, plugins and data share, without torch."""

from __future__ import annotations

from typing import Literal, get_args

TARGET_FIELDS = {
    "label": "int, the index of the image's one class in the dataset's names['label']",
    "labels": "float32 [C], 1 for each class of names['labels'] that the image has, else 0",
    "values": "float32 [T], one number for each of names['values'], in original units",
    "boxes": "float64 [N, 4], x1 y1 x2 y2 in pixels of the image as it is read, 0 at its left and upper edge, x1 < x2, "
    "y1 < y2, inside the image; beside it `box_labels` int64 [N], indices in names['boxes'], `box_crowd` bool [N], "
    "whether a box stands for a group, and `box_areas` float64 [N], square pixels of the object",
    "mask": "uint8 [H, W], for each pixel an index in names['mask'], or 255 where none is to be learnt; from `mask`",
}
"""The vocabulary of target fields: what a dataset provides, and what a task can learn from.

`boxes` and `mask` are places in the image: they follow it through every change of its size and every augmentation.
"""

IGNORE = 255
"""The mask value of a pixel that is not learnt from and not measured."""

MAX_CLASSES = 255
"""Most classes that a mask can have."""

SPATIAL_FIELDS = frozenset({"boxes", "mask"})
"""The target fields that are places in the image, and follow it when it changes its size or is augmented."""

Input = Literal["image", "clip"]
INPUTS: tuple[str, ...] = get_args(Input)
"""What a sample may be, and a network take: a single image, or a clip of several frames, [T, H, W, 3]."""

Fit = Literal["crop", "stretch", "pad", "shorter", "none"]
FITS: tuple[str, ...] = get_args(Fit)
"""The ways to bring an image to size; see ``image.fit`` in the config."""
