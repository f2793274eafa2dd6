"""What the plugin offers. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from ftengine.plugin import BackboneSpec, DatasetSpec, HeadSpec, MetricSpec, hookimpl
from ftengine_video.options import ActionOptions, ClipFolderOptions, MovingDigitsOptions

FTENGINE_API = (1, 1)  # the first with clips

NETWORKS = {
    "r3d_18": "r3d_18: residual network of 3D convolutions (arXiv:1711.11248)",
    "mc3_18": "mc3_18: residual network, 3D convolutions first and 2D ones after (arXiv:1711.11248)",
    "r2plus1d_18": "r2plus1d_18: residual network of 2D convolutions, each with a 1D one in time (arXiv:1711.11248)",
    "s3d": "s3d: separable 3D inception network (arXiv:1712.04851)",
}


@hookimpl
def register_backbones() -> Iterator[BackboneSpec]:
    for name, summary in NETWORKS.items():
        yield BackboneSpec(
            name=name,
            factory=f"ftengine_video.backbones:{name}",
            summary=summary,
            levels=("c1", "c2", "c3", "c4", "c5"),
            weights=("KINETICS400_V1",),
            default_weights="KINETICS400_V1",
            input="clip",
        )


@hookimpl
def register_heads() -> Iterator[HeadSpec]:
    yield HeadSpec(
        name="action",
        task="classification",
        factory="ftengine_video.heads:Action",
        summary="Average over time and space, dropout, and one linear layer.",
        options=ActionOptions,
        input="clip",
    )


@hookimpl
def register_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="mean_class_accuracy",
        task="classification",
        factory="ftengine_video.metrics:MeanClassAccuracy",
        summary="Accuracy of each class, averaged over the classes.",
        primary="mean_class_accuracy",
        fields=("label",),
    )


@hookimpl
def register_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="clips",
        factory="ftengine_video.clip_folder:clip_folder",
        summary="A folder a split, in it a folder a class, in it clips: folders of frames, or animations.",
        options=ClipFolderOptions,
        fields=("label",),
    )
    yield DatasetSpec(
        name="moving_digits",
        factory="ftengine_video.moving_digits:MovingDigits",
        summary="Clips of handwritten digits that move; the class is the direction. No files are needed.",
        options=MovingDigitsOptions,
        fields=("label",),
    )
