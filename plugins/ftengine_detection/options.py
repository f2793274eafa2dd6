"""The options of detection's components, as a config gives them. Nothing here imports torch.

Where torchvision has an option, the name and the default are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ftengine.plugin import Options

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Overlap = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(gt=0)]
BoxForm = Literal["smooth_l1", "giou", "ciou"]


class PresetOptions(Options):
    """Options of a head that has presets: `presets` maps each to the options that it sets, where a config does not."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        name = given.get("preset")
        return {**cls.presets.get(name, {}), **given} if isinstance(name, str) else given


def same_number(anchor_sizes: list[list[int]]) -> list[list[int]]:
    """`anchor_sizes`; ValueError where the levels have different numbers of them."""
    if len({len(sizes) for sizes in anchor_sizes}) > 1:
        raise ValueError(
            "every level needs the same number of sizes, because the levels share their layers; found "
            + ", ".join(str(len(sizes)) for sizes in anchor_sizes)
        )
    return anchor_sizes


AnchorSizes = Annotated[
    list[Annotated[list[Count], Field(min_length=1)]],
    Field(min_length=5, max_length=5),
    AfterValidator(same_number),
]
"""A list for each of the pyramid's five levels."""


class TaskOptions(Options):
    threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Score from which a box is counted in tables and drawn in pictures; metrics and result files have "
        "all boxes.",
    )


class FasterRcnnOptions(PresetOptions):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "anchor_sizes": [[8], [16], [32], [64], [128]],
            "fpn_channels": 64,
            "fc_width": 256,
            "rpn_pre_nms_top_n_train": 300,
            "rpn_pre_nms_top_n_test": 200,
            "rpn_post_nms_top_n_train": 150,
            "rpn_post_nms_top_n_test": 100,
            "rpn_batch_size_per_image": 64,
            "box_batch_size_per_image": 64,
        }
    }

    version: Literal["v1", "v2"] = Field(
        "v1",
        description="v1: Ren et al. 2015 on a feature pyramid, two fully connected layers. v2: Li et al. 2021, with "
        "BatchNorm in the pyramid, two convolutions in the proposal network and four in the box head.",
    )
    preset: Literal["default", "small"] = Field(
        "default",
        description="The values of what is not given here; small: narrow layers, small anchors and few proposals, for "
        "images of about 128 pixels and training on a CPU.",
    )
    anchor_sizes: AnchorSizes = Field(
        [[32], [64], [128], [256], [512]],
        description="Sides of the anchors in pixels, a list for each of the levels p2 … p6.",
    )
    anchor_aspect_ratios: list[Ratio] = Field(
        [0.5, 1.0, 2.0], min_length=1, description="Height / width of the anchors; every size is used with each."
    )
    fpn_channels: Count = Field(256, description="Channels of the feature pyramid, and of v2's box head.")
    fc_width: Count = Field(1024, description="Width of the fully connected layers of the box head.")
    rpn_pre_nms_top_n_train: Count = Field(2000, description="Training: best proposals a level that enter NMS.")
    rpn_pre_nms_top_n_test: Count = Field(1000, description="Evaluation: best proposals a level that enter NMS.")
    rpn_post_nms_top_n_train: Count = Field(2000, description="Training: proposals an image after NMS.")
    rpn_post_nms_top_n_test: Count = Field(1000, description="Evaluation: proposals an image after NMS.")
    rpn_nms_thresh: Overlap = Field(0.7, description="IoU above which NMS drops the lower-scored proposal.")
    rpn_score_thresh: float = Field(0.0, ge=0, lt=1, description="Least objectness of a proposal.")
    rpn_fg_iou_thresh: Share = Field(0.7, description="IoU with an object from which an anchor is positive.")
    rpn_bg_iou_thresh: Share = Field(0.3, description="IoU with all objects below which an anchor is negative.")
    rpn_batch_size_per_image: Count = Field(256, description="Anchors an image that the loss is taken of.")
    rpn_positive_fraction: Share = Field(0.5, description="Largest part of these that is positive.")
    box_fg_iou_thresh: Share = Field(0.5, description="IoU with an object from which a proposal has its class.")
    box_bg_iou_thresh: Share = Field(0.5, description="IoU with all objects below which a proposal is background.")
    box_batch_size_per_image: Count = Field(512, description="Proposals an image that the loss is taken of.")
    box_positive_fraction: Share = Field(0.25, description="Largest part of these that is not background.")
    box_score_thresh: float = Field(0.05, ge=0, lt=1, description="Detections need a score above this.")
    box_nms_thresh: Overlap = Field(0.5, description="IoU above which NMS drops the lower-scored of two of a class.")
    box_detections_per_img: Count = Field(100, description="Most detections an image.")

    @model_validator(mode="after")
    def _consistent(self) -> FasterRcnnOptions:
        for stage in ("rpn", "box"):
            low, high = (getattr(self, f"{stage}_{side}_iou_thresh") for side in ("bg", "fg"))
            if low > high:
                raise ValueError(f"{stage}_bg_iou_thresh ({low:g}) is above {stage}_fg_iou_thresh ({high:g})")
        return self


class FasterRcnnLossOptions(Options):
    box: BoxForm = Field(
        "smooth_l1",
        description="The term `box`: smooth_l1 of the encoded offsets, or 1 - GIoU or CIoU of the decoded boxes.",
    )
    rpn_box: BoxForm = Field("smooth_l1", description="The term `rpn_box`, likewise.")
    classifier: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="The term `classifier`; focal: each proposal times (1 - p)^focal_gamma."
    )
    focal_gamma: float = Field(2.0, ge=0, description="How much well-classified proposals count less; 0: not at all.")
    objectness_weight: Weight = Field(1.0, description="Factor of the term `objectness`.")
    rpn_box_weight: Weight = Field(1.0, description="Factor of the term `rpn_box`.")
    classifier_weight: Weight = Field(1.0, description="Factor of the term `classifier`.")
    box_weight: Weight = Field(1.0, description="Factor of the term `box`.")


SUMMARY = (
    "map",
    "map_50",
    "map_75",
    "map_small",
    "map_medium",
    "map_large",
    "mar_1",
    "mar_10",
    "mar_100",
    "mar_small",
    "mar_medium",
    "mar_large",
)
"""Names for pycocotools' twelve numbers, in its order; the first is the one that COCO ranks by."""


class CocoMapOptions(Options):
    per_class: bool = Field(True, description="Whether to report each class, too, as map/<class>.")
