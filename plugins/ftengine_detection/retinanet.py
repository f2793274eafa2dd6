"""RetinaNet on any backbone with the levels c3 … c5, from torchvision's parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet, RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights
from torchvision.models.detection import retinanet as stock
from torchvision.models.detection._utils import BoxCoder, Matcher

from ftengine.errors import WeightsError
from ftengine.protocols import HeadContext, PublishedModel
from ftengine_detection.common import Instances, StridedAnchors
from ftengine_detection.one_stage import LEVELS, Matching, OneStageHead, published, pyramid_to_p7
from ftengine_detection.one_stage_options import GROUPS, RetinaNetOptions
from ftengine_detection.published import PYRAMID

BOX_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
"""How offsets from anchors are encoded: offsets of the centre by the anchor's size, and logarithms of relative size."""

OLD_NAMES = (PYRAMID, *((rf"^(head\.\w+\.conv)\.{2 * i}\.(weight|bias)$", rf"\1.{i}.0.\2") for i in range(4)))
"""Files from before torchvision 0.13 have the convolutions without the block around them and its activation."""


class Layers(Matching, stock.RetinaNetHead):
    """Up to four convolutions and a prediction for the classes, and as many for the boxes, shared by all levels."""

    def __init__(
        self, channels: int, per_position: int, classes: int, depth: int, norm: Callable[..., nn.Module] | None
    ) -> None:
        super().__init__(channels, per_position, classes, norm)
        for part in (self.classification_head, self.regression_head):
            part.conv = part.conv[:depth]  # torchvision always makes four


class RetinaNetHead(OneStageHead):
    """Lin et al., "Focal Loss for Dense Object Detection", 2017, as torchvision has it.

    ``bbox_regression`` is what BOX_CODER encodes. The score of a detection is the sigmoid of its logit.
    """

    old_names = OLD_NAMES
    compute_loss = RetinaNet.compute_loss
    postprocess_detections = RetinaNet.postprocess_detections

    def __init__(self, options: RetinaNetOptions, context: HeadContext) -> None:
        second = options.version == "v2"
        strides = [context.strides[level] for level in LEVELS]
        generator = StridedAnchors(options.anchor_sizes, options.anchor_aspect_ratios, strides)
        norm = partial(nn.GroupNorm, GROUPS) if second else None
        classes, per_position = len(context.task.labels), generator.num_anchors_per_location()[0]
        layers = Layers(options.fpn_channels, per_position, classes, options.num_convs, norm)
        super().__init__(pyramid_to_p7(options, context, from_c5=second), layers, generator, options)
        self.box_coder = BOX_CODER
        self.proposal_matcher = Matcher(options.fg_iou_thresh, options.bg_iou_thresh, allow_low_quality_matches=True)

    def match(self, objects: list[Instances], anchors: list[Tensor], level_sizes: list[int]) -> Tensor:
        """By IoU; the best anchor of an object is always its own."""
        matched: Tensor = self.compute_loss(objects, {}, anchors)
        return matched


def retinanet(options: RetinaNetOptions, context: HeadContext) -> RetinaNetHead:
    head = RetinaNetHead(options, context)
    if context.weights is not None:
        head.published = _published(head, options, context)
    return head


def _published(head: RetinaNetHead, options: RetinaNetOptions, context: HeadContext) -> PublishedModel:
    first = options.version == "v1"
    weights = (RetinaNet_ResNet50_FPN_Weights if first else RetinaNet_ResNet50_FPN_V2_Weights).COCO_V1.value
    # The first was trained when torchvision's frozen BatchNorm had no epsilon: its `overwrite_eps`.
    eps = 0.0 if first else None
    needed = {"fpn_channels": 256, "num_convs": 4}
    model = published(head, options, context, weights, "a RetinaNet", needed, norm_eps=eps)
    per_position = head.anchor_generator.num_anchors_per_location()[0]
    if per_position != 9:
        raise WeightsError(
            f"head.weights: {context.weights}: the published layers have 9 anchors a place; found {per_position}"
        )
    return model
