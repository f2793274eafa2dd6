"""FCOS on any backbone with the levels c3 … c5, from torchvision's parts."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection import FCOS, FCOS_ResNet50_FPN_Weights
from torchvision.models.detection import fcos as stock
from torchvision.models.detection._utils import BoxLinearCoder

from ftengine.protocols import HeadContext
from ftengine_detection.common import Instances, StridedAnchors
from ftengine_detection.one_stage import LEVELS, Matching, OneStageHead, published, pyramid_to_p7
from ftengine_detection.one_stage_options import FcosOptions

BOX_CODER = BoxLinearCoder(normalize_by_size=True)
"""How boxes are encoded: distances of the four sides from the position, in strides."""


class Layers(Matching, stock.FCOSHead):
    """Convolutions and predictions for the classes, and as many for the boxes and centerness, shared by all levels."""


class FcosHead(OneStageHead):
    """Tian et al., "FCOS: A Simple and Strong Anchor-Free Object Detector", 2020, as torchvision has it.

    What torchvision calls an anchor is here a position, with a square of one stride around it. ``bbox_regression`` is
    what BOX_CODER encodes; besides there is ``bbox_ctrness``, float32 [B, A, 1], the logit of how near a position is to
    the centre of its object. The score of a detection is the root of class probability times centerness.
    """

    compute_loss = FCOS.compute_loss
    postprocess_detections = FCOS.postprocess_detections

    def __init__(self, options: FcosOptions, context: HeadContext) -> None:
        strides = [context.strides[level] for level in LEVELS]
        sizes = [[stride] for stride in (*strides, 2 * strides[-1], 4 * strides[-1])]
        generator = StridedAnchors(sizes, [1.0], strides)
        layers = Layers(options.fpn_channels, 1, len(context.task.labels), options.num_convs)
        super().__init__(pyramid_to_p7(options, context, from_c5=False), layers, generator, options)
        self.box_coder = BOX_CODER
        self.center_sampling_radius = options.center_sampling_radius

    def match(self, objects: list[Instances], anchors: list[Tensor], level_sizes: list[int]) -> Tensor:
        """Positions near the centre of an object whose size is the level's; of several objects the smallest."""
        matched: Tensor = self.compute_loss(objects, {}, anchors, level_sizes)
        return matched


def fcos(options: FcosOptions, context: HeadContext) -> FcosHead:
    head = FcosHead(options, context)
    if context.weights is not None:
        needed = {"fpn_channels": 256, "num_convs": 4}
        head.published = published(head, options, context, FCOS_ResNet50_FPN_Weights.COCO_V1.value, "an FCOS", needed)
    return head
