"""Faster R-CNN on any backbone with the levels c2 … c5, from torchvision's parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights, FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from ftengine.errors import WeightsError
from ftengine.protocols import Batch, Head, HeadContext, Output, Prediction, PublishedModel
from ftengine_detection.common import (
    Instances,
    StridedAnchors,
    anchors,
    image_list,
    instances,
    pick,
    predictions,
    pyramid,
)
from ftengine_detection.options import FasterRcnnOptions
from ftengine_detection.published import BODY, PYRAMID, renamed, stock_names

LEVELS = ("c2", "c3", "c4", "c5")
POOLED = 7
"""Height and width of what is pooled of a proposal."""

PROPOSAL_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
BOX_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
"""How offsets from anchors, and those from proposals, are encoded: offsets of centre and log size, times these."""

OLD_NAMES = (PYRAMID, (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"))


class Proposer(RegionProposalNetwork):
    """Torchvision's region proposal network, which hands out what it sampled instead of its losses."""

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[Instances] | None = None
    ) -> tuple[list[Tensor], Output]:
        """The proposals of each image, [N, 4], and with `targets` the ``rpn_`` tensors of :class:`FasterRcnn`."""
        levels = list(features.values())
        objectness, deltas = self.head(levels)
        sizes = [math.prod(level.shape[1:]) for level in objectness]
        objectness, deltas = (flat.float() for flat in concat_box_prediction_layers(objectness, deltas))
        grid = anchors(self.anchor_generator, images, levels)
        # Where to look is not learnt through the proposals' places: Ren et al. 2015, "approximate joint training".
        proposals = self.box_coder.decode(deltas.detach(), grid).view(len(grid), -1, 4)
        proposals, _ = self.filter_proposals(proposals, objectness, images.image_sizes, sizes)
        if targets is None:
            return proposals, {}
        labels, matched = self.assign_targets_to_anchors(grid, targets)
        chosen = [torch.where(torch.cat(mask))[0] for mask in self.fg_bg_sampler(labels)]
        positive, both = chosen[0], torch.cat(chosen)
        return proposals, {
            "rpn_logits": objectness.flatten()[both],
            "rpn_labels": torch.cat(labels)[both],
            "rpn_deltas": deltas[positive],
            "rpn_anchors": torch.cat(grid)[positive],
            "rpn_boxes": torch.cat(matched)[positive],
        }


class Detector(RoIHeads):
    """Torchvision's box head, which hands out what it sampled instead of its losses."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        images: ImageList,
        targets: list[Instances] | None = None,
    ) -> Output:
        """The ``roi_`` tensors of :class:`FasterRcnn`: with `targets` those of training, else those of evaluation."""
        if targets is None:
            logits, deltas = self.classify(features, proposals, images)
            return {"roi_logits": logits, "roi_deltas": deltas, "roi_proposals": proposals}
        proposals, matched, labels, _ = self.select_training_samples(proposals, targets)
        logits, deltas = self.classify(features, proposals, images)
        boxes = [one["boxes"][index[label > 0]] for one, index, label in zip(targets, matched, labels, strict=True)]
        label = torch.cat(labels)
        positive = torch.where(label > 0)[0]
        return {
            "roi_logits": logits,
            "roi_labels": label,
            "roi_deltas": deltas.unflatten(1, (-1, 4))[positive, label[positive]],
            "roi_proposals": torch.cat(proposals)[positive],
            "roi_boxes": torch.cat(boxes),
        }

    def classify(
        self, features: dict[str, Tensor], proposals: list[Tensor], images: ImageList
    ) -> tuple[Tensor, Tensor]:
        """Logits [R, C + 1] and offsets [R, 4 (C + 1)] of the proposals, float32."""
        pooled = self.box_roi_pool(features, proposals, images.image_sizes)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.float(), deltas.float()


class FasterRcnn(Head):
    """Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", 2015, on a feature
    pyramid (Lin et al. 2017), as torchvision has it.

    In training `forward` returns the sampled anchors and proposals of the whole batch, all float32 but the labels::

        rpn_logits     [S]         objectness of the S sampled anchors
        rpn_labels     [S]         1 for an object, else 0
        rpn_deltas     [P, 4]      offsets predicted for the P positive ones, as PROPOSAL_CODER encodes them
        rpn_anchors    [P, 4]      these anchors, as all boxes here x1 y1 x2 y2 in the batch's pixels
        rpn_boxes      [P, 4]      the objects they are to become
        roi_logits     [R, C + 1]  class logits of the R sampled proposals, the background first
        roi_labels     [R]         int64, 0 for the background, else 1 + the class
        roi_deltas     [Q, 4]      offsets for the own class of the Q that have one, as BOX_CODER encodes them
        roi_proposals  [Q, 4]      these proposals
        roi_boxes      [Q, 4]      the objects they are to become

    S and R are the numbers of samples an image times the images, or less where there are not that many; P, Q and R
    can be 0. What is sampled is drawn from torch's default generator. In evaluation there are ``roi_logits`` [R, C + 1]
    and ``roi_deltas`` [R, 4 (C + 1)] of all proposals, and ``roi_proposals``, a list of [R_i, 4] for each image.
    """

    loss_in_eval = False  # nothing is sampled then

    def __init__(self, fpn: FeaturePyramidNetwork, rpn: Proposer, roi_heads: Detector) -> None:
        super().__init__()
        self.fpn = fpn
        self.rpn = rpn
        self.roi_heads = roi_heads

    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        images = image_list(batch)
        levels = self.fpn(pick(features, LEVELS))
        targets = instances(batch, first_label=1) if self.training else None
        proposals, sampled = self.rpn(images, levels, targets)
        return {**sampled, **self.roi_heads(levels, proposals, images, targets)}

    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        sizes = [frame.size for frame in batch.frames]
        boxes, scores, labels = self.roi_heads.postprocess_detections(
            output["roi_logits"], output["roi_deltas"], output["roi_proposals"], sizes
        )
        return predictions(boxes, scores, [label - 1 for label in labels], batch.frames)

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return renamed(tensors, OLD_NAMES)


def faster_rcnn(options: FasterRcnnOptions, context: HeadContext) -> FasterRcnn:
    second = options.version == "v2"
    norm = nn.BatchNorm2d if second else None
    channels = options.fpn_channels
    fpn = pyramid(context, LEVELS, channels, LastLevelMaxPool(), norm)
    head = FasterRcnn(fpn, _proposer(options, context, 2 if second else 1), _detector(options, context))
    if context.weights is not None:
        head.published = _published(head, options, context)
    return head


def _proposer(options: FasterRcnnOptions, context: HeadContext, depth: int) -> Proposer:
    strides = [context.strides[level] for level in LEVELS]
    generator = StridedAnchors(options.anchor_sizes, options.anchor_aspect_ratios, strides)
    return Proposer(
        generator,
        RPNHead(options.fpn_channels, generator.num_anchors_per_location()[0], depth),
        options.rpn_fg_iou_thresh,
        options.rpn_bg_iou_thresh,
        options.rpn_batch_size_per_image,
        options.rpn_positive_fraction,
        {"training": options.rpn_pre_nms_top_n_train, "testing": options.rpn_pre_nms_top_n_test},
        {"training": options.rpn_post_nms_top_n_train, "testing": options.rpn_post_nms_top_n_test},
        options.rpn_nms_thresh,
        options.rpn_score_thresh,
    )


def _detector(options: FasterRcnnOptions, context: HeadContext) -> Detector:
    channels, width = options.fpn_channels, options.fc_width
    if options.version == "v2":
        box_head = FastRCNNConvFCHead((channels, POOLED, POOLED), [channels] * 4, [width], nn.BatchNorm2d)
    else:
        box_head = TwoMLPHead(channels * POOLED**2, width)
    return Detector(
        _pooler([context.strides[level] for level in LEVELS]),
        box_head,
        FastRCNNPredictor(width, len(context.task.labels) + 1),
        options.box_fg_iou_thresh,
        options.box_bg_iou_thresh,
        options.box_batch_size_per_image,
        options.box_positive_fraction,
        BOX_CODER.weights,
        options.box_score_thresh,
        options.box_nms_thresh,
        options.box_detections_per_img,
    )


def _pooler(strides: list[int]) -> MultiScaleRoIAlign:
    """Torchvision's pooling, told the strides, which it would else guess from the size of the first batch."""
    pooler = MultiScaleRoIAlign(list(LEVELS), POOLED, sampling_ratio=2)
    pooler.scales = [1 / stride for stride in strides]
    pooler.map_levels = initLevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))
    return pooler


def _published(head: FasterRcnn, options: FasterRcnnOptions, context: HeadContext) -> PublishedModel:
    """The detector trained on COCO; all of it but the predictor, whose size depends on the classes."""
    if context.backbone != "resnet50":
        raise WeightsError(
            f"head.weights: {context.weights}: torchvision has published a Faster R-CNN for the backbone resnet50, "
            f"not for {context.backbone!r}"
        )
    anchors_a_place = len(options.anchor_sizes[0]) * len(options.anchor_aspect_ratios)
    for what, needed, found in (
        ("fpn_channels {}", 256, options.fpn_channels),
        ("fc_width {}", 1024, options.fc_width),
        ("{} anchors a place", 3, anchors_a_place),
    ):
        if found != needed:
            raise WeightsError(
                f"head.weights: {context.weights}: the published layers have {what.format(needed)}; found {found} "
                f"(preset: {options.preset})"
            )
    first = options.version == "v1"
    weights = (FasterRCNN_ResNet50_FPN_Weights if first else FasterRCNN_ResNet50_FPN_V2_Weights).COCO_V1
    names = stock_names(head)
    return PublishedModel(
        url=weights.url,
        names=names,
        backbone=BODY,
        replaced=tuple(name for name in names if name.startswith("roi_heads.box_predictor.")),
        # The first was trained when torchvision's frozen BatchNorm had no epsilon: its `overwrite_eps`.
        norm_eps=0.0 if first else None,
    )
