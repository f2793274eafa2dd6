"""The options of segmentation's heads, as a config gives them. Nothing here imports torch.

The defaults are those of torchvision and of segmentation-models-pytorch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftengine.plugin import Options

Width = Annotated[int, Field(ge=1)]
Widths = Annotated[list[Width], Field(min_length=5, max_length=5)]
Rates = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
ThreeRates = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)]
Norm = Literal["batchnorm", "instancenorm", "none"]
Interpolation = Literal["nearest", "bilinear"]

DECODER_WIDTHS = "Channels of the decoder's five blocks, from the coarsest map to the finest."
NORM = "Normalisation layers of the decoder."
INTERPOLATION = "How the decoder enlarges its maps."


class FcnOptions(Options):
    aux: bool = Field(
        False, description="Whether to train a second classifier on c4; its loss is weighted by the loss's aux_weight."
    )


class DeepLabOptions(FcnOptions):
    atrous_rates: Rates = Field(
        [12, 24, 36],
        description="Dilations of the pyramid's 3x3 convolutions; these are for output_stride 8.",
    )


class UnetOptions(Options):
    channels: Widths = Field([256, 128, 64, 32, 16], description=DECODER_WIDTHS)
    norm: Norm = Field("batchnorm", description=NORM)
    attention: Literal["scse"] | None = Field(
        None, description="Attention within each block: scse, over channels and positions (arXiv:1803.02579)."
    )
    interpolation: Interpolation = Field("nearest", description=INTERPOLATION)
    center: bool = Field(False, description="Whether two convolutions stand between the last level and the decoder.")

    @model_validator(mode="after")
    def _attention_has_channels(self) -> UnetOptions:
        if self.attention is not None and min(self.channels) < 16:
            raise ValueError(f"attention {self.attention} needs channels of at least 16, found {min(self.channels)}")
        return self


class FpnOptions(Options):
    pyramid_channels: Width = Field(256, description="Channels of the pyramid's levels.")
    segmentation_channels: int = Field(
        128, ge=32, multiple_of=32, description="Channels of each level's branch, normalised in 32 groups."
    )
    merge: Literal["add", "cat"] = Field("add", description="Whether the branches are summed, or put side by side.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Probability of dropping a channel before the last layer.")
    interpolation: Interpolation = Field("nearest", description=INTERPOLATION)


class PspOptions(Options):
    channels: Width = Field(512, description="Channels of the fused map.")
    norm: Norm = Field("batchnorm", description=NORM)
    dropout: float = Field(0.2, ge=0, lt=1, description="Probability of dropping a channel before the last layer.")


class DeepLabPlusOptions(Options):
    channels: Width = Field(256, description="Channels of the pyramid and of the fused map.")
    atrous_rates: ThreeRates = Field([12, 24, 36], description="Dilations of the pyramid's three 3x3 convolutions.")
    separable: bool = Field(True, description="Whether the pyramid's 3x3 convolutions are depthwise separable.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Probability of dropping a value of the pyramid's output.")


class LinknetOptions(Options):
    channels: Width = Field(32, description="Channels of the last block.")
    norm: Norm = Field("batchnorm", description=NORM)


class ManetOptions(Options):
    channels: Widths = Field([256, 128, 64, 32, 16], description=DECODER_WIDTHS)
    attention_channels: Width = Field(64, description="Channels of the attention between the positions of c5.")
    norm: Norm = Field("batchnorm", description=NORM)
    interpolation: Interpolation = Field("nearest", description=INTERPOLATION)


class PanOptions(Options):
    channels: Width = Field(32, description="Channels of the decoder.")
    interpolation: Interpolation = Field("bilinear", description=INTERPOLATION)


class UperOptions(Options):
    channels: Width = Field(256, description="Channels of the pyramid and of the fused map.")
    norm: Literal["batchnorm", "none"] = Field("batchnorm", description=NORM)


class SegformerOptions(Options):
    channels: Width = Field(256, description="Channels that every level is projected to, and of the fused map.")
