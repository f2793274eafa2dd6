"""What the detection plugin offers. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from ftengine.plugin import Defaults, HeadSpec, LossSpec, MetricSpec, TaskSpec, hookimpl
from ftengine_detection import one_stage_options, options

FTENGINE_API = (1, 1)

SMALL = {"preset": "small"}
"""What a head is tried with, in small images and on a CPU."""


@hookimpl
def register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        name="detection",
        factory="ftengine_detection.task:Detection",
        summary="A box and a class for each object in an image (boxes).",
        options=options.TaskOptions,
        targets={"boxes": Defaults(head="faster_rcnn", loss="faster_rcnn", metrics=("coco_map",))},
        image_size=800,
        image_fit="shorter",
    )


@hookimpl
def register_heads() -> Iterator[HeadSpec]:
    yield HeadSpec(
        name="faster_rcnn",
        task="detection",
        factory="ftengine_detection.faster_rcnn:faster_rcnn",
        summary="Two stages: a feature pyramid, a region proposal network and a box head on its proposals.",
        options=options.FasterRcnnOptions,
        levels=("c2", "c3", "c4", "c5"),
        loss="faster_rcnn",
        weights=("coco",),
        example=SMALL,
    )
    yield HeadSpec(
        name="retinanet",
        task="detection",
        factory="ftengine_detection.retinanet:retinanet",
        summary="One stage with anchors: a feature pyramid, and class and box of each anchor on it.",
        options=one_stage_options.RetinaNetOptions,
        levels=("c3", "c4", "c5"),
        loss="retinanet",
        weights=("coco",),
        example=SMALL,
    )
    yield HeadSpec(
        name="fcos",
        task="detection",
        factory="ftengine_detection.fcos:fcos",
        summary="One stage without anchors: a feature pyramid, and class, box and centerness of each position on it.",
        options=one_stage_options.FcosOptions,
        levels=("c3", "c4", "c5"),
        loss="fcos",
        weights=("coco",),
        example=SMALL,
    )


@hookimpl
def register_losses() -> Iterator[LossSpec]:
    yield LossSpec(
        name="faster_rcnn",
        task="detection",
        factory="ftengine_detection.faster_rcnn_loss:FasterRcnnLoss",
        summary="Objectness and boxes of the proposals, class and box of the detections.",
        options=options.FasterRcnnLossOptions,
        heads=("faster_rcnn",),
        fields=("boxes",),
    )
    yield LossSpec(
        name="retinanet",
        task="detection",
        factory="ftengine_detection.one_stage_losses:RetinaNetLoss",
        summary="Focal loss of the classes of all anchors, and the boxes of those that stand for an object.",
        options=one_stage_options.RetinaNetLossOptions,
        heads=("retinanet",),
        fields=("boxes",),
    )
    yield LossSpec(
        name="fcos",
        task="detection",
        factory="ftengine_detection.one_stage_losses:FcosLoss",
        summary="Focal loss of the classes of all positions; box and centerness of those that stand for an object.",
        options=one_stage_options.FcosLossOptions,
        heads=("fcos",),
        fields=("boxes",),
    )


@hookimpl
def register_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="coco_map",
        task="detection",
        factory="ftengine_detection.metrics:CocoMap",
        summary="COCO's twelve numbers of average precision and recall, and the precision of each class.",
        options=options.CocoMapOptions,
        primary="map",
        others=options.SUMMARY[1:],
        fields=("boxes",),
    )
