"""What every detection head needs around torchvision's parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork

from ftengine.protocols import Batch, Frame, HeadContext, Prediction

Instances = dict[str, Tensor]
"""One image's objects, as torchvision's parts take them: `boxes` float32 [N, 4] x1 y1 x2 y2, `labels` int64 [N]."""


def image_list(batch: Batch) -> ImageList:
    """The batch as torchvision's parts take it: the padded tensor, and each image's own (height, width) in it."""
    return ImageList(batch.images, [frame.size for frame in batch.frames])


def instances(batch: Batch, first_label: int = 0) -> list[Instances]:
    """The objects that each image of the batch is trained with, in its pixels; a crowd is none.

    Reads ``targets["boxes"]``, ``["labels"]`` and ``["crowd"]``, each a list of one tensor an image. The first class
    gets the label `first_label`: 1 where 0 is the background.
    """
    found = []
    targets = batch.targets
    for boxes, labels, crowd in zip(targets["boxes"], targets["labels"], targets["crowd"], strict=True):
        places = boxes.float()
        # A sliver can lose its area in float32, and its logarithm would be infinite.
        usable = ~crowd & (places[:, 2:] > places[:, :2]).all(1)
        found.append({"boxes": places[usable], "labels": labels[usable] + first_label})
    return found


def pyramid(
    context: HeadContext,
    levels: Sequence[str],
    channels: int,
    extra: ExtraFPNBlock,
    norm: Callable[..., nn.Module] | None = None,
) -> FeaturePyramidNetwork:
    """Torchvision's feature pyramid on `levels` of the backbone; `extra` makes the coarser levels."""
    return FeaturePyramidNetwork([context.channels[level] for level in levels], channels, extra, norm)


def pick(features: Mapping[str, Tensor], levels: Sequence[str]) -> dict[str, Tensor]:
    """The `levels` of the backbone's features, in that order."""
    return OrderedDict((level, features[level]) for level in levels)


class StridedAnchors(AnchorGenerator):
    """Torchvision's anchors, told the strides of the backbone's levels; `sizes` are those of each level, in pixels.

    Torchvision concludes a stride from the size of the batch by that of the level, rounded down: that is less than the
    stride unless it divides the size. Of the coarser levels, which only the pyramid has, it is kept, since the
    published detectors were trained so.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], ratios: Sequence[float], strides: Sequence[int]) -> None:
        super().__init__(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
        self.strides = [[stride, stride] for stride in strides]

    def grid_anchors(self, grid_sizes: list[list[int]], strides: list[list[Tensor]]) -> list[Tensor]:
        levels: list[Tensor] = super().grid_anchors(grid_sizes, [*self.strides, *strides[len(self.strides) :]])
        return levels


def anchors(generator: AnchorGenerator, images: ImageList, features: Sequence[Tensor]) -> list[Tensor]:
    """The anchors of each image, float32 [A, 4], of all levels one after another.

    The generator makes them in the type of the features, and bfloat16 has no odd numbers above 256.
    """
    grids = [level.new_empty(level.shape[-2:], dtype=torch.float32) for level in features]
    made: list[Tensor] = generator(images, grids)
    return made


def predictions(
    boxes: Sequence[Tensor], scores: Sequence[Tensor], labels: Sequence[Tensor], frames: Sequence[Frame]
) -> list[Prediction]:
    """Each image's detections in its original pixels and on the CPU, in the order they come in.

    `boxes` [N, 4], `scores` [N], `labels` int64 [N] from 0. What lies outside the original image, in the part that
    was filled up, is left out.
    """
    counts = [len(part) for part in boxes]
    # One transfer for the whole batch.
    packed = [torch.cat(list(parts)).detach().cpu() for parts in (boxes, scores, labels)]
    found = []
    for place, score, label, frame in zip(*(part.split(counts) for part in packed), frames, strict=True):
        original = frame.to_original(place.float())
        inside = (original[:, 2:] > original[:, :2]).all(1)
        found.append({"boxes": original[inside], "scores": score[inside].float(), "labels": label[inside]})
    return found
