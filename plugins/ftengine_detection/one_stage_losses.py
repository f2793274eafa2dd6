"""The losses of RetinaNet and FCOS, from what their heads predict and match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss, sigmoid_focal_loss

from ftengine.protocols import Batch, Loss, LossContext, Output
from ftengine_detection import fcos, retinanet
from ftengine_detection.one_stage_options import FcosLossOptions, OneStageLossOptions, RetinaNetLossOptions

NOT_LEARNT = -2
"""What ``matched`` says of an anchor between background and object."""

LEAST_SIDE = 1e-3
"""Pixels: little, and still a difference in float32 of places up to 8192."""


@dataclass(frozen=True)
class Positives:
    """The P anchors of a batch that stand for an object: `image` and `anchor`, int64 [P], are their places in it.

    `labels` int64 [P] and `boxes` float32 [P, 4] are the objects'.
    """

    image: Tensor
    anchor: Tensor
    labels: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, output: Output) -> Positives:
        matched = output["matched"]
        image, anchor = (matched >= 0).nonzero(as_tuple=True)
        counts = torch.tensor([len(labels) for labels in output["labels"]], device=matched.device)
        index = matched[image, anchor] + (counts.cumsum(0) - counts)[image]
        return cls(image, anchor, torch.cat(output["labels"])[index], torch.cat(output["boxes"])[index])


class RetinaNetLoss(Loss):
    """``classification`` and ``box``, each times its weight.

    Reads what :class:`ftengine_detection.retinanet.RetinaNetHead` returns with targets. Both terms are sums over an
    image's anchors by the number of those that stand for an object (at least 1), and means over the images. The first
    is the focal loss of sigmoids, of which every anchor has one for each class (Lin et al. 2017). Box forms: l1 of the
    encoded offsets; 1 - GIoU (Rezatofighi et al. 2019) and CIoU (Zheng et al. 2020) of the decoded boxes.
    """

    def __init__(self, options: RetinaNetLossOptions, context: LossContext) -> None:
        super().__init__()
        self.options = options

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        options, matched = self.options, output["matched"]
        positives = Positives.of(output)
        share = 1 / ((matched >= 0).sum(1).clamp(min=1) * len(matched))  # [B]
        each = _focal(options, output["cls_logits"], positives)
        return {
            "classification": options.classification_weight * ((each * (matched != NOT_LEARNT)).sum(1) * share).sum(),
            "box": options.box_weight * (self._boxes(output, positives) * share[positives.image]).sum(),
        }

    def _boxes(self, output: Output, positives: Positives) -> Tensor:
        """[P]"""
        deltas = output["bbox_regression"][positives.image, positives.anchor]
        anchors = output["anchors"][positives.anchor]
        if self.options.box == "l1":
            wanted = retinanet.BOX_CODER.encode_single(positives.boxes, anchors)
            return F.l1_loss(deltas, wanted, reduction="none").sum(1)
        return _overlap(self.options.box, retinanet.BOX_CODER.decode_single(deltas, anchors), positives.boxes)


class FcosLoss(Loss):
    """``classification``, ``box`` and ``centerness``, each times its weight.

    Reads what :class:`ftengine_detection.fcos.FcosHead` returns with targets. All terms are sums over the batch by the
    number of positions that stand for an object (at least 1): the focal loss of sigmoids (Lin et al. 2017), of all
    positions; of those with an object 1 - GIoU (Rezatofighi et al. 2019) or CIoU (Zheng et al. 2020) of the decoded
    boxes, and the binary cross-entropy of the centerness (Tian et al. 2020, equation 3).
    """

    def __init__(self, options: FcosLossOptions, context: LossContext) -> None:
        super().__init__()
        self.options = options

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        positives = Positives.of(output)
        chosen = positives.image, positives.anchor
        anchors = output["anchors"][positives.anchor]
        boxes = fcos.BOX_CODER.decode(output["bbox_regression"][chosen], anchors)
        left, top, right, bottom = fcos.BOX_CODER.encode(anchors, positives.boxes).unbind(1)
        ratios = torch.stack([left, top]) / torch.stack([right, bottom])
        wanted = torch.minimum(ratios, 1 / ratios).prod(0).sqrt()
        logits = output["bbox_ctrness"][chosen].squeeze(1)
        centerness = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        count = max(1, len(anchors))
        return {
            "classification": options.classification_weight
            * _focal(options, output["cls_logits"], positives).sum()
            / count,
            "box": options.box_weight * _overlap(options.box, boxes, positives.boxes).sum() / count,
            "centerness": options.centerness_weight * centerness / count,
        }


def _focal(options: OneStageLossOptions, logits: Tensor, positives: Positives) -> Tensor:
    """The focal loss of each anchor, the sum over its classes: [B, A]."""
    classes = torch.zeros_like(logits)
    classes[positives.image, positives.anchor, positives.labels] = 1
    each: Tensor = sigmoid_focal_loss(logits, classes, options.alpha, options.gamma)
    return each.sum(2)


def _overlap(form: Literal["giou", "ciou"], boxes: Tensor, wanted: Tensor) -> Tensor:
    """1 - GIoU or CIoU of each pair: [P]. CIoU has no aspect ratio of a box without width and height: it gets some."""
    if form == "ciou":
        boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + LEAST_SIDE)], dim=1)
    each: Tensor = (generalized_box_iou_loss if form == "giou" else complete_box_iou_loss)(boxes, wanted)
    return each
