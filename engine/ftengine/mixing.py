"""Mixup and cutmix: training images blended with others of their batch, and their labels in the same proportion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ftengine.config import MixConfig
from ftengine.errors import DataError
from ftengine.model import StreamBatch
from ftengine.protocols import Task


class Mixing:
    """Mixes a batch, called as ``mixing(batch, names)`` with the names of the tasks that learn from it.

    Each image is mixed with the one before it in the batch, the first with the last, and all with the same share s of
    their own:

    - mixup: s x + (1 - s) x', s from Beta(a, a). Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.
    - cutmix: x with a box of x', whose sides are √(1 - s) of the image's and which is cut off at its edges; s is then
      the share of pixels that this leaves. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers
      with Localizable Features", 2019.

    What is random comes from torch's default generator of the CPU, whatever device the batch is on.
    """

    def __init__(self, config: MixConfig, tasks: Mapping[str, Task]) -> None:
        from torchvision.transforms import v2  # here: most runs mix nothing

        given = ((v2.MixUp, config.mixup), (v2.CutMix, config.cutmix))
        self.kinds = [kind(alpha=alpha) for kind, alpha in given if alpha is not None]
        self.p = config.p
        self.tasks = tasks

    def __call__(self, batch: StreamBatch, names: Sequence[str]) -> StreamBatch:
        """The batch with images float32 [B, H, W, 3] in 0..255 (clips [B, T, H, W, 3]) and ``Task.soften``'s targets.

        With probability 1 - p it is returned as it is, with images uint8 and targets that are not softened, and so is
        one of a single image. `batch` itself stays as it is. Raises DataError for images of unequal sizes, for which
        there is no share that would be right for both the pixels and the labels.
        """
        if float(torch.rand(())) >= self.p or len(batch) < 2:
            return batch
        height, width = _size(batch)
        soft = {name: self.tasks[name].soften(batch.targets[name]) for name in names}
        columns = [labels for own in soft.values() for labels in own.values()]
        images = batch.images[..., :height, :width, :].movedim(-1, -3).to(torch.float32)
        kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
        # The frames of a clip are further channels: all are mixed alike.
        mixed, labels = kind(images.flatten(1, -3), torch.cat(columns, dim=1))
        images = mixed.reshape(images.shape).movedim(-3, -1)
        parts = iter(labels.split([column.shape[1] for column in columns], dim=1))
        targets = {name: batch.targets[name] | {key: next(parts) for key in own} for name, own in soft.items()}
        return replace(batch, images=_filled(images, batch), targets=batch.targets | targets)


def _size(batch: StreamBatch) -> tuple[int, int]:
    """(height, width) of every image in the batch."""
    examples = {frame.size: name for name, frame in zip(batch.ids, batch.frames, strict=True)}
    if len(examples) > 1:
        different = ", ".join(f"{name}: {height}x{width}" for (height, width), name in examples.items())
        raise DataError(
            f"mix: images of unequal sizes cannot be mixed ({different}); use image.fit crop, stretch or pad, by which "
            "all have the same"
        )
    return batch.frames[0].size


def _filled(images: Tensor, batch: StreamBatch) -> Tensor:
    """`images` [B, …, H, W, 3], filled up with 0 to the size of the batch's tensor."""
    rows, columns = batch.images.shape[-3] - images.shape[-3], batch.images.shape[-2] - images.shape[-2]
    return functional.pad(images, (0, 0, 0, columns, 0, rows)) if rows or columns else images
