"""Images with their boxes and masks, brought to size together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ftengine.config import ImageConfig
from ftengine.images import fit
from ftengine.protocols import IGNORE, Frame


@dataclass(frozen=True)
class Scene:
    """An image and what has a place in it.

    `image`: uint8 [H, W, 3], or a clip [T, H, W, 3]. `boxes`: float64 [N, 4], x1 y1 x2 y2 in its pixels, None where
    there are none to follow. `mask`: uint8 [H, W], None likewise. `kept`: int64 [N], which of the sample's own boxes
    these are.
    """

    image: np.ndarray
    boxes: np.ndarray | None = None
    mask: np.ndarray | None = None
    kept: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[-3], self.image.shape[-2]


def padded(size: tuple[int, int], multiple: int = 32) -> tuple[int, int]:
    """`size` rounded up to multiples, which no stage of a network has to round."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def placed(size: tuple[int, int], config: ImageConfig) -> Frame:
    """Where an image of `size` comes to lie when it is fitted as `config` says."""
    height, width = size
    if config.fit == "none":
        return Frame.whole(height, width)
    assert config.fit is not None, "resolving a config gives it a fit"
    assert config.size is not None, "resolving a config gives every fit but `none` its size"
    rows, columns = config.size
    if config.fit == "shorter":
        assert config.max_size is not None
        scale = min(rows / min(size), config.max_size / max(size))
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        return Frame(size, inner, (0.0, 0.0, float(inner[0]), float(inner[1])))
    if config.fit == "stretch":
        return Frame(size, config.size, (0.0, 0.0, float(rows), float(columns)))
    if config.fit == "crop":
        scale = max(rows / height, columns / width)
        y, x = (rows - height * scale) / 2, (columns - width * scale) / 2
        return Frame(size, config.size, (y, x, height * scale, width * scale))
    scale = min(rows / height, columns / width)
    inner = min(rows, max(1, round(height * scale))), min(columns, max(1, round(width * scale)))
    top, left = (rows - inner[0]) // 2, (columns - inner[1]) // 2
    return Frame(size, config.size, (float(top), float(left), float(inner[0]), float(inner[1])))


def fit_scene(scene: Scene, config: ImageConfig) -> tuple[Scene, Frame]:
    """`scene` as `config.fit` says, and where its image now lies. Boxes and masks do not go with a crop."""
    frame = placed(scene.size, config)
    if config.fit == "none":
        return scene, frame
    mode = config.fit if config.fit in ("crop", "pad") else "stretch"
    image = scene.image
    if frame.size != scene.size:
        clip = image.ndim == 4
        image = np.stack([fit(one, frame.size, mode) for one in image]) if clip else fit(image, frame.size, mode)
    return replace(scene, image=image, boxes=_boxes(scene, frame), mask=_mask(scene, frame)), frame


def _boxes(scene: Scene, frame: Frame) -> np.ndarray | None:
    if scene.boxes is None or frame.size == frame.original:
        return scene.boxes
    top, left, height, width = frame.content
    rows, columns = frame.original
    scale = np.array([width / columns, height / rows] * 2)
    return np.asarray(scene.boxes * scale + np.array([left, top, left, top]))


def _mask(scene: Scene, frame: Frame) -> np.ndarray | None:
    if scene.mask is None or frame.size == frame.original:
        return scene.mask
    top, left, height, width = (round(value) for value in frame.content)
    resized = np.array(Image.fromarray(scene.mask).resize((width, height), Image.Resampling.NEAREST))
    if (height, width) == frame.size:
        return resized
    canvas = np.full(frame.size, IGNORE, np.uint8)
    canvas[top : top + height, left : left + width] = resized
    return canvas
