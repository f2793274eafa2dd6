"""Torchvision's backbones: ResNet, VGG, Inception v3, ConvNeXt, EfficientNet, MobileNet, RegNet, ViT and Swin.

Dropout is an option where the published network has such layers (VGG, MobileNet v3, ViT, Swin), and stochastic depth of
all that have residual blocks. The other networks are published without dropout inside; the heads have it before their
last layer. Both act in training, and in frozen stages, too: what freezes is parameters and, by choice, normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from ftengine.plugin import BackboneSpec, Options, hookimpl
from ftengine_torchvision.catalogue import MODELS, default_weights

FTENGINE_API = (1, 1)


DEPTH = (
    "Rate at which the last residual block is skipped in training (Huang et al. 2016); it grows linearly from 0 at the "
    "first block. "
)
Depth = Annotated[
    float, Field(ge=0, lt=1, description=DEPTH + "The published models of this family were trained without.")
]
PublishedDepth = Annotated[
    Annotated[float, Field(ge=0, lt=1)] | None,
    Field(description=DEPTH + "Left out: the rate that the published model was trained with."),
]


class DilatedOptions(Options):
    """Options of the convolutional networks whose last stages can keep a finer grid."""

    output_stride: Literal[8, 16, 32] = Field(
        32,
        description="Input pixels per pixel of the last feature map. With 16 or 8 the last one or two stages do not "
        "shrink the map; their filters are dilated instead, so that pretrained weights stay valid.",
    )


class ResidualOptions(DilatedOptions):
    """Options of ResNet, RegNet and MobileNet."""

    stochastic_depth: Depth = 0.0


class VGGOptions(DilatedOptions):
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout rate between the published classifier's layers.")


class MobileNetV3Options(ResidualOptions):
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate after the published classifier's first layer.")


class StochasticDepthOptions(DilatedOptions):
    """Options of ConvNeXt and EfficientNet."""

    stochastic_depth: PublishedDepth = None


class AttentionOptions(Options):
    """Options of the transformers."""

    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the embeddings and of each block.")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the attention weights.")


class ViTOptions(AttentionOptions):
    stochastic_depth: Depth = 0.0


class SwinOptions(AttentionOptions):
    stochastic_depth: PublishedDepth = None


@dataclass(frozen=True)
class Family:
    summary: str
    options: type[Options]
    levels: tuple[str, ...]
    example_config: Mapping[str, Any] = field(default_factory=dict)


GRIDS = ("c1", "c2", "c3", "c4", "c5")

FAMILIES = {
    "resnet": Family("deep residual network (arXiv:1512.03385, 1611.05431, 1605.07146)", ResidualOptions, GRIDS),
    "vgg": Family("plain 3x3 convolutions (arXiv:1409.1556)", VGGOptions, (*GRIDS, "pooled")),
    "inception": Family("parallel factorised convolutions (arXiv:1512.00567)", Options, GRIDS, {"image": {"size": 75}}),
    "convnext": Family(
        "modernised residual network (arXiv:2201.03545)", StochasticDepthOptions, (*GRIDS[1:], "pooled")
    ),
    "efficientnet": Family("scaled inverted residuals (arXiv:1905.11946, 2104.00298)", StochasticDepthOptions, GRIDS),
    "mobilenet_v2": Family("inverted residuals, for small devices (arXiv:1801.04381)", ResidualOptions, GRIDS),
    "mobilenet_v3": Family(
        "searched inverted residuals, for small devices (arXiv:1905.02244)", MobileNetV3Options, (*GRIDS, "pooled")
    ),
    "regnet": Family("residual network from a regular design space (arXiv:2003.13678)", ResidualOptions, GRIDS),
    "vit": Family("vision transformer, one grid of patches (arXiv:2010.11929)", ViTOptions, (*GRIDS, "pooled")),
    "swin": Family("shifted-window transformer (arXiv:2103.14030, 2111.09883)", SwinOptions, GRIDS[1:]),
}


@hookimpl
def register_backbones() -> Iterator[BackboneSpec]:
    for key, models in MODELS.items():
        family = FAMILIES[key]
        for name, weights in models.items():
            yield BackboneSpec(
                name=name,
                factory=f"ftengine_torchvision.backbones:{name}",
                summary=f"{name}: {family.summary}",
                options=family.options,
                levels=family.levels,
                weights=weights,
                default_weights=default_weights(name),
                example_config=family.example_config,
            )
