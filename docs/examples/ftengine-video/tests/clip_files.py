"""Clips in files."""

import numpy as np
from PIL import Image


def frames(brightness, seed, count=4, size=(16, 20)):
    """Noisy frames of one brightness, uint8 [count, H, W, 3]."""
    noise = np.random.default_rng(seed).integers(-20, 20, (count, *size, 3))
    return (brightness + noise).astype(np.uint8)


def write_clip(path, clip):
    """A clip as an animation, or, where `path` has no suffix, as a folder of frames."""
    images = [Image.fromarray(frame) for frame in clip]
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        lossless = {"lossless": True} if path.suffix == ".webp" else {}
        images[0].save(path, save_all=True, append_images=images[1:], **lossless)
    else:
        path.mkdir(parents=True)
        for number, image in enumerate(images, start=1):
            image.save(path / f"{number}.png")
    return path
