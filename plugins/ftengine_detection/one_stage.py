"""What RetinaNet and FCOS share: the pyramid p3 … p7, the match of anchors with objects, and the detections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ftengine.errors import WeightsError
from ftengine.protocols import Batch, Head, HeadContext, Output, Prediction, PublishedModel
from ftengine_detection.common import Instances, anchors, image_list, instances, pick, predictions, pyramid
from ftengine_detection.one_stage_options import OneStageOptions
from ftengine_detection.published import BODY, PYRAMID, Renaming, renamed, stock_names

LEVELS = ("c3", "c4", "c5")
"""The backbone's levels that the pyramid is built on."""


class Matching:
    """A mixin for torchvision's one-stage heads that leaves the loss to the loss plugin.

    Torchvision's models match anchors with objects and then ask their head for the loss of that match: this one
    hands the match back.
    """

    def compute_loss(
        self, targets: list[Instances], head_outputs: Output, anchors: list[Tensor], matched_idxs: list[Tensor]
    ) -> Tensor:
        """int64 [B, A]; see ``matched`` of :class:`OneStageHead`."""
        return torch.stack(matched_idxs)


class OneStageHead(Head):
    """Pyramid, layers and anchors of a one-stage detector of torchvision; its rules are torchvision's model's own.

    `forward` returns, for B images with A anchors of all levels one after another:

    - ``cls_logits`` float32 [B, A, C], ``bbox_regression`` float32 [B, A, 4] and what else `head` predicts;
    - ``anchors`` float32 [A, 4], x1 y1 x2 y2 in the batch's pixels, and ``level_sizes``, how many are of each level;
    - where the batch has targets, in training and evaluation: ``boxes`` and ``labels``, lists with the objects of each
      image without its crowds, and ``matched`` int64 [B, A], for each anchor the place of its object in these lists,
      -1 for the background, -2 for an anchor that is not learnt from.

    The rules that a subclass takes from torchvision's model read the attributes whose names are torchvision's.
    """

    old_names: Sequence[Renaming] = (PYRAMID,)
    """What has another name in older published files."""

    def __init__(
        self,
        fpn: FeaturePyramidNetwork,
        head: nn.Module,
        anchor_generator: AnchorGenerator,
        options: OneStageOptions,
    ) -> None:
        super().__init__()
        self.fpn = fpn
        self.head = head
        self.anchor_generator = anchor_generator
        self.score_thresh = options.score_thresh
        self.nms_thresh = options.nms_thresh
        self.detections_per_img = options.detections_per_img
        self.topk_candidates = options.topk_candidates

    @abstractmethod
    def match(self, objects: list[Instances], anchors: list[Tensor], level_sizes: list[int]) -> Tensor:
        """The objects of the anchors, int64 [B, A]: ``matched``."""

    @abstractmethod
    def postprocess_detections(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """The detections of each image, best first, from outputs and anchors by level."""

    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        levels = list(self.fpn(pick(features, LEVELS)).values())
        # Boxes and loss terms are computed in float32, whatever type the layers have.
        output: Output = {name: value.float() for name, value in self.head(levels).items()}
        each = anchors(self.anchor_generator, image_list(batch), levels)
        per_position = self.anchor_generator.num_anchors_per_location()[0]
        output["anchors"] = each[0]  # those of every image in the batch
        output["level_sizes"] = [level.shape[-2] * level.shape[-1] * per_position for level in levels]
        if batch.targets:
            objects = instances(batch)
            output["matched"] = self.match(objects, each, output["level_sizes"])
            output["boxes"], output["labels"] = ([one[name] for one in objects] for name in ("boxes", "labels"))
        return output

    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        sizes = output["level_sizes"]
        names = [name for name, value in output.items() if isinstance(value, Tensor) and value.dim() == 3]
        levels = {name: list(output[name].split(sizes, dim=1)) for name in names}
        grid = list(output["anchors"].split(sizes))
        found = self.postprocess_detections(levels, [grid] * len(batch), image_list(batch).image_sizes)
        boxes, scores, labels = ([one[name] for one in found] for name in ("boxes", "scores", "labels"))
        return predictions(boxes, scores, labels, batch.frames)

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return renamed(tensors, self.old_names)


def pyramid_to_p7(options: OneStageOptions, context: HeadContext, *, from_c5: bool) -> FeaturePyramidNetwork:
    """p3 … p5 of the backbone's levels, p6 from p5 or from c5, and p7."""
    channels = options.fpn_channels
    extra = LastLevelP6P7(context.channels[LEVELS[-1]] if from_c5 else channels, channels)
    extra.use_P5 = not from_c5  # torchvision concludes it from the channels, which may be the same
    return pyramid(context, LEVELS, channels, extra)


def published(
    head: OneStageHead,
    options: OneStageOptions,
    context: HeadContext,
    weights: Weights,
    what: str,
    needed: Mapping[str, int],
    **more: Any,
) -> PublishedModel:
    """Torchvision's detector trained on COCO, of which all but the layer of class logits is taken.

    Raises WeightsError for a backbone that there is none for, and for options that differ from what is `needed`.
    """
    place = f"head.weights: {context.weights}"
    if context.backbone != "resnet50":
        raise WeightsError(
            f"{place}: torchvision has published {what} for the backbone resnet50, not for {context.backbone!r}"
        )
    for name, value in needed.items():
        if getattr(options, name) != value:
            raise WeightsError(
                f"{place}: the published layers have {name} {value}; found {getattr(options, name)} "
                f"(preset: {options.preset})"
            )
    names = stock_names(head)
    replaced = tuple(name for name in names if name.startswith("head.classification_head.cls_logits."))
    return PublishedModel(url=weights.url, names=names, backbone=BODY, replaced=replaced, **more)
