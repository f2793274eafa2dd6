"""The backbone ``timm``: any model of timm that offers features, by name.

Its dropout and stochastic depth act in training, and in frozen stages, too: what freezes is parameters and, by choice,
normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ftengine.plugin import BackboneSpec, Options, hookimpl

FTENGINE_API = (1, 1)


RATES = ("drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate")
"""The options that make something random in training."""

Rate = Annotated[float, Field(ge=0, lt=1)] | None


class TimmOptions(Options):
    model: str = Field(
        description="timm's name of the model, with or without the tag of its weights: convnext_tiny, "
        "resnet50.a1_in1k, vit_small_patch14_dinov2.lvd142m."
    )
    drop_rate: Rate = Field(
        None,
        description="Dropout rate of what timm's classifier reads (level `pooled`), in some models of embeddings or "
        "blocks as well; the model's own default if left out.",
    )
    drop_path_rate: Rate = Field(
        None,
        description="Stochastic depth: rate at which the last block is skipped in training, lower in those before it "
        "(Huang et al. 2016); the model's own default if left out.",
    )
    attn_drop_rate: Rate = Field(
        None, description="Dropout rate of the attention weights; the model's own default if left out."
    )
    proj_drop_rate: Rate = Field(
        None,
        description="Dropout rate of what attention and MLP of each block return; the model's own default if left out.",
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
        levels=("c1", "c2", "c3", "c4", "c5", "c6", "pooled"),
        default_weights="default",
        open_weights=True,
        example={"model": "resnet18"},
    )
