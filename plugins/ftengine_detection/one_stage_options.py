"""The options of the one-stage heads and their losses. Nothing here imports torch.

Where torchvision has an option, the name and the default are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ftengine.plugin import Options
from ftengine_detection.options import AnchorSizes, Count, Overlap, PresetOptions, Ratio, Share, Weight

GROUPS = 32
"""The groups of torchvision's GroupNorm layers: they divide the channels."""


class OneStageOptions(PresetOptions):
    """What RetinaNet and FCOS share."""

    preset: Literal["default", "small"] = Field(
        "default",
        description="The values of what is not given here; small: narrow layers and what suits images of about 128 "
        "pixels and training on a CPU.",
    )
    fpn_channels: Count = Field(256, description="Channels of the feature pyramid and of the layers on it.")
    score_thresh: float = Field(0.05, ge=0, lt=1, description="Detections need a score above this.")
    topk_candidates: Count = Field(1000, description="Best detections a level that enter NMS.")
    nms_thresh: Overlap = Field(0.5, description="IoU above which NMS drops the lower-scored of two of a class.")
    detections_per_img: Count = Field(300, description="Most detections an image.")


class RetinaNetOptions(OneStageOptions):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "version": "v2",
            "fpn_channels": 64,
            "num_convs": 2,
            "anchor_sizes": [[16, 20, 25], [32, 40, 50], [64, 80, 101], [128, 161, 203], [256, 322, 406]],
            "topk_candidates": 300,
            "detections_per_img": 100,
        }
    }

    version: Literal["v1", "v2"] = Field(
        "v1",
        description="v1: Lin et al. 2017, the level p6 made of p5. v2: Zhang et al. 2020, with GroupNorm between the "
        "convolutions and p6 made of c5; torchvision trains it with the loss's `box: giou`.",
    )
    num_convs: int = Field(
        4, ge=1, le=4, description="Convolutions before the predictions, for classes and for boxes each."
    )
    anchor_sizes: AnchorSizes = Field(
        [[32, 40, 50], [64, 80, 101], [128, 161, 203], [256, 322, 406], [512, 645, 812]],
        description="Sides of the anchors in pixels, a list for each of the levels p3 … p7.",
    )
    anchor_aspect_ratios: list[Ratio] = Field(
        [0.5, 1.0, 2.0], min_length=1, description="Height / width of the anchors; every size is used with each."
    )
    fg_iou_thresh: Share = Field(0.5, description="IoU with an object from which an anchor has its class.")
    bg_iou_thresh: Share = Field(
        0.4, description="IoU with all objects below which an anchor is background; in between it is not learnt from."
    )

    @model_validator(mode="after")
    def _consistent(self) -> RetinaNetOptions:
        if self.bg_iou_thresh > self.fg_iou_thresh:
            raise ValueError(f"bg_iou_thresh ({self.bg_iou_thresh:g}) is above fg_iou_thresh ({self.fg_iou_thresh:g})")
        if self.version == "v2":
            _check_groups(self.fpn_channels, "version v2")
        return self


class FcosOptions(OneStageOptions):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"fpn_channels": 64, "num_convs": 2, "topk_candidates": 300, "score_thresh": 0.05}
    }

    num_convs: Count = Field(4, description="Convolutions before the predictions, for classes and for boxes each.")
    center_sampling_radius: float = Field(
        1.5, gt=0, description="Largest distance, in strides, of a position from the centre of its object."
    )
    score_thresh: float = Field(0.2, ge=0, lt=1, description="Detections need a score above this.")
    nms_thresh: Overlap = Field(0.6, description="IoU above which NMS drops the lower-scored of two of a class.")
    detections_per_img: Count = Field(100, description="Most detections an image.")

    @model_validator(mode="after")
    def _consistent(self) -> FcosOptions:
        _check_groups(self.fpn_channels, "fcos")
        return self


class OneStageLossOptions(Options):
    alpha: Share = Field(
        0.25, description="Weight of the class an object has, 1 - alpha that of the others and of the background."
    )
    gamma: float = Field(2.0, ge=0, description="How much well-classified anchors count less; 0: not at all.")
    classification_weight: Weight = Field(1.0, description="Factor of the term `classification`.")
    box_weight: Weight = Field(1.0, description="Factor of the term `box`.")


class RetinaNetLossOptions(OneStageLossOptions):
    box: Literal["l1", "giou", "ciou"] = Field(
        "l1", description="The term `box`: l1 of the encoded offsets, or 1 - GIoU or CIoU of the decoded boxes."
    )


class FcosLossOptions(OneStageLossOptions):
    box: Literal["giou", "ciou"] = Field("giou", description="The term `box`: 1 - GIoU or CIoU of the decoded boxes.")
    centerness_weight: Weight = Field(1.0, description="Factor of the term `centerness`.")


def _check_groups(channels: int, what: str) -> None:
    if channels % GROUPS:
        near = max(GROUPS, round(channels / GROUPS) * GROUPS)
        raise ValueError(
            f"fpn_channels: {what} has GroupNorm layers of {GROUPS} groups, which must divide the channels; found "
            f"{channels}, the nearest is {near}"
        )
