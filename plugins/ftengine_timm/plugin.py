"""The backbone ``timm``: any model of timm that offers features, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from ftengine.plugin import BackboneSpec, Options, hookimpl

FTENGINE_API = (1, 0)


class TimmOptions(Options):
    model: str = Field(
        description="timm's name of the model, with or without the tag of its weights: convnext_tiny, "
        "resnet50.a1_in1k, vit_small_patch14_dinov2.lvd142m."
    )
    drop_rate: float | None = Field(None, ge=0, lt=1, description="Dropout rate; the model's own default if left out.")
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="Stochastic depth rate of the last block; the model's own default if left out."
    )
    output_stride: Literal[8, 16, 32] | None = Field(
        None,
        description="Input pixels per pixel of the last feature map, for models that can dilate their last stages.",
    )
    img_size: int | tuple[int, int] | None = Field(
        None,
        description="Height and width (or one number for both) of the images, for models that are built for one size; "
        "position embeddings of the published weights are resized to it.",
    )


@hookimpl
def register_backbones() -> Iterator[BackboneSpec]:
    yield BackboneSpec(
        name="timm",
        factory="ftengine_timm.backbone:build",
        summary="Any timm model that offers features (huggingface.co/docs/timm), cut into its stages",
        options=TimmOptions,
        levels=("c1", "c2", "c3", "c4", "c5", "pooled"),
        default_weights="default",
        open_weights=True,
    )
