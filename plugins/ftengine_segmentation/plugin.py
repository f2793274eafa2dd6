"""What the segmentation plugin offers. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from ftengine.plugin import Defaults, HeadSpec, LossSpec, MetricSpec, TaskSpec, hookimpl
from ftengine_segmentation import options
from ftengine_segmentation.head_specs import HEADS

FTENGINE_API = (1, 1)


@hookimpl
def register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        name="segmentation",
        factory="ftengine_segmentation.task:Segmentation",
        summary="One class for each pixel (mask).",
        options=options.TaskOptions,
        targets={"mask": Defaults(head="fcn", loss="cross_entropy", metrics=("mean_iou", "pixel_accuracy"))},
        image_size=512,
        image_fit="shorter",
    )


@hookimpl
def register_heads() -> Iterator[HeadSpec]:
    yield from HEADS


@hookimpl
def register_losses() -> Iterator[LossSpec]:
    yield LossSpec(
        name="cross_entropy",
        task="segmentation",
        factory="ftengine_segmentation.losses:CrossEntropy",
        summary="Softmax cross-entropy of each pixel, with label smoothing and class weights.",
        options=options.CrossEntropyOptions,
        fields=("mask",),
    )
    yield LossSpec(
        name="focal",
        task="segmentation",
        factory="ftengine_segmentation.losses:Focal",
        summary="Focal loss of each pixel's softmax.",
        options=options.FocalOptions,
        fields=("mask",),
    )
    yield LossSpec(
        name="dice",
        task="segmentation",
        factory="ftengine_segmentation.losses:dice",
        summary="1 - the soft Dice coefficient, mean over the classes that occur.",
        options=options.OverlapOptions,
        fields=("mask",),
    )
    yield LossSpec(
        name="jaccard",
        task="segmentation",
        factory="ftengine_segmentation.losses:jaccard",
        summary="1 - the soft IoU, mean over the classes that occur.",
        options=options.OverlapOptions,
        fields=("mask",),
    )
    yield LossSpec(
        name="tversky",
        task="segmentation",
        factory="ftengine_segmentation.losses:tversky",
        summary="Dice with weights for false positives and false negatives, and a focal power.",
        options=options.TverskyOptions,
        fields=("mask",),
    )
    yield LossSpec(
        name="lovasz",
        task="segmentation",
        factory="ftengine_segmentation.losses:Lovasz",
        summary="Lovasz-Softmax: the convex surrogate of the IoU, mean over the classes that occur.",
        options=options.RegionOptions,
        fields=("mask",),
    )


@hookimpl
def register_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="mean_iou",
        task="segmentation",
        factory="ftengine_segmentation.metrics:mean_iou",
        summary="Intersection over union of each class's pixels, and its mean over classes.",
        options=options.MetricOptions,
        primary="mean_iou",
        fields=("mask",),
    )
    yield MetricSpec(
        name="dice",
        task="segmentation",
        factory="ftengine_segmentation.metrics:dice",
        summary="Dice coefficient (F1) of each class's pixels, and its mean over classes.",
        options=options.MetricOptions,
        primary="dice",
        fields=("mask",),
    )
    yield MetricSpec(
        name="pixel_accuracy",
        task="segmentation",
        factory="ftengine_segmentation.metrics:pixel_accuracy",
        summary="Share of pixels whose class is right.",
        primary="pixel_accuracy",
        fields=("mask",),
    )
