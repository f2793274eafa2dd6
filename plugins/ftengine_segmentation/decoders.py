"""The decoders of segmentation-models-pytorch, on the levels c1 … c5 of any backbone.

Decoders and last layers are its own, under its own names and with its own first values; only the last enlargement
is ours, bilinear to the batch tensor's size with pixel centres aligned. A level c1 that a backbone lacks (ConvNeXt,
Swin) is a map of no channels, as for its own encoders of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from segmentation_models_pytorch.base import SegmentationHead as LastLayer
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder
from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from ftengine.errors import FtengineError
from ftengine.protocols import HeadContext, Output
from ftengine_segmentation import head_options as options_of
from ftengine_segmentation.heads import SegmentationHead, resize

LEVELS = ("c1", "c2", "c3", "c4", "c5")
ANY_STRIDES = "deeplabv3plus, pan, pspnet, segformer, unet and upernet"
NORMS: dict[str, Any] = {
    "batchnorm": "batchnorm",
    "instancenorm": {"type": "instancenorm", "affine": True},  # its first values are set, so it must have some
    "none": "identity",
}


class DecoderHead(SegmentationHead):
    """`decoder` on the images and the levels c1 … c5, then `segmentation_head`, a convolution to the classes.

    `grid` maps levels to strides where the decoder enlarges by fixed factors: a map that is not exactly that many
    times smaller than the images, filled up to a multiple of the coarsest stride, is brought to that size first.
    `least` is the smallest height and width of c5 that the decoder takes.
    """

    def __init__(
        self,
        name: str,
        decoder: nn.Module,
        last: LastLayer,
        *,
        grid: dict[str, int] | None = None,
        least: int = 1,
        pooled_norm: bool = False,
    ) -> None:
        super().__init__(name, pooled_norm=pooled_norm)
        self.decoder = decoder
        self.segmentation_head = last
        self.grid = grid or {}
        self.least = least

    def maps(self, features: dict[str, Tensor], images: Tensor) -> Output:
        height, width = images.shape[-2:]
        coarsest = features["c5"]
        if min(coarsest.shape[-2:]) < self.least:
            raise FtengineError(
                f"head {self.name}: needs a map c5 of at least {self.least}x{self.least}, got "
                f"{coarsest.shape[-2]}x{coarsest.shape[-1]} from images of {height}x{width}: use larger images, or a "
                "backbone with a smaller output_stride"
            )
        levels = [images]
        for index, level in enumerate(LEVELS, start=1):
            if level not in features:
                levels.append(coarsest.new_empty(len(images), 0, height >> index, width >> index))
            elif level in self.grid:
                levels.append(resize(features[level], self._size(level, height, width)))
            else:
                levels.append(features[level])
        return {"logits": self.segmentation_head(self.decoder(levels))}

    def _size(self, level: str, height: int, width: int) -> tuple[int, int]:
        coarsest = self.grid["c5"]
        factor = coarsest // self.grid[level]
        return math.ceil(height / coarsest) * factor, math.ceil(width / coarsest) * factor


def encoder_channels(context: HeadContext) -> list[int]:
    """Channels of the images and of c1 … c5; 0 for a level that the backbone does not have."""
    return [3, *(context.channels.get(level, 0) for level in LEVELS)]


def last_layer(channels: int, context: HeadContext, kernel_size: int) -> LastLayer:
    """A convolution to the classes."""
    return LastLayer(channels, len(context.task.labels), kernel_size=kernel_size)


def halving(name: str, context: HeadContext, levels: Sequence[str]) -> dict[str, int]:
    """The strides of those of `levels` that there are, for a decoder that enlarges by 2 from each to the one before.

    Raises FtengineError where the strides are others. A missing c1 counts as stride 2.
    """
    strides = {level: context.strides.get(level, 2) for level in levels}
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides.values())):
        found = ", ".join(f"{level} {stride}" for level, stride in strides.items())
        raise FtengineError(
            f"head {name}: the stride must double from each of the levels {levels[0]} … {levels[-1]} to the next, "
            f"found {found}: leave the backbone's output_stride at 32 and take no backbone with one grid of patches, "
            f"or use a head that takes any strides: {ANY_STRIDES}"
        )
    return strides


def initialised(head: DecoderHead) -> DecoderHead:
    """`head` with the first values that segmentation-models-pytorch gives it."""
    initialize_decoder(head.decoder)
    initialize_head(head.segmentation_head)
    return head


def unet(options: options_of.UnetOptions, context: HeadContext) -> DecoderHead:
    """U-Net (arXiv:1505.04597): from c5 up, block by block, each with the level of its size beside it."""
    decoder = UnetDecoder(
        encoder_channels(context),
        options.channels,
        use_norm=NORMS[options.norm],
        attention_type=options.attention,
        add_center_block=options.center,
        interpolation_mode=options.interpolation,
    )
    return initialised(DecoderHead("unet", decoder, last_layer(options.channels[-1], context, 3)))


def unetplusplus(options: options_of.UnetOptions, context: HeadContext) -> DecoderHead:
    """U-Net++ (arXiv:1807.10165): U-Net with blocks on the way of each level to its size's block."""
    decoder = UnetPlusPlusDecoder(
        encoder_channels(context),
        options.channels,
        use_norm=NORMS[options.norm],
        attention_type=options.attention,
        interpolation_mode=options.interpolation,
        center=options.center,
    )
    grid = halving("unetplusplus", context, LEVELS)
    last = last_layer(options.channels[-1], context, 3)
    return initialised(DecoderHead("unetplusplus", decoder, last, grid=grid))


def fpn(options: options_of.FpnOptions, context: HeadContext) -> DecoderHead:
    """Feature pyramid (arXiv:1612.03144, panoptic: 1901.02446) of c2 … c5, its levels enlarged to c2 and merged."""
    decoder = FPNDecoder(
        encoder_channels(context),
        pyramid_channels=options.pyramid_channels,
        segmentation_channels=options.segmentation_channels,
        dropout=options.dropout,
        merge_policy=options.merge,
        interpolation_mode=options.interpolation,
    )
    grid = halving("fpn", context, LEVELS[1:])
    return initialised(DecoderHead("fpn", decoder, last_layer(decoder.out_channels, context, 1), grid=grid))


def pspnet(options: options_of.PspOptions, context: HeadContext) -> DecoderHead:
    """PSPNet (arXiv:1612.01105): c5 beside its means over 1, 2x2, 3x3 and 6x6 parts of the image."""
    if context.channels["c5"] % 4:
        raise FtengineError(f"head pspnet: c5 must have a multiple of 4 channels, found {context.channels['c5']}")
    decoder = PSPDecoder(
        encoder_channels(context), NORMS[options.norm], out_channels=options.channels, dropout=options.dropout
    )
    return initialised(DecoderHead("pspnet", decoder, last_layer(options.channels, context, 3)))


def deeplabv3plus(options: options_of.DeepLabPlusOptions, context: HeadContext) -> DecoderHead:
    """DeepLab v3+ (arXiv:1802.02611): the pyramid of dilated convolutions on c5, refined with c2."""
    fine, coarse = context.strides["c2"], context.strides["c5"]
    if coarse % fine:
        raise FtengineError(f"head deeplabv3plus: c5's stride must be a multiple of c2's, found {coarse} and {fine}")
    decoder = DeepLabV3PlusDecoder(
        encoder_channels(context),
        encoder_depth=5,
        out_channels=options.channels,
        atrous_rates=options.atrous_rates,
        output_stride=16,
        aspp_separable=options.separable,
        aspp_dropout=options.dropout,
    )
    # Its own factors are those of output strides 8 and 16 alone.
    decoder.up = nn.Upsample(scale_factor=coarse // fine, mode="bilinear", align_corners=True)
    last = last_layer(options.channels, context, 1)
    return DecoderHead("deeplabv3plus", decoder, last, grid={"c2": fine, "c5": coarse}, pooled_norm=True)


def linknet(options: options_of.LinknetOptions, context: HeadContext) -> DecoderHead:
    """LinkNet (arXiv:1707.03718): transposed convolutions from c5 up, each level added to the block of its size."""
    decoder = LinknetDecoder(encoder_channels(context), options.channels, use_norm=NORMS[options.norm])
    grid = halving("linknet", context, LEVELS)
    return initialised(DecoderHead("linknet", decoder, last_layer(options.channels, context, 1), grid=grid))


def manet(options: options_of.ManetOptions, context: HeadContext) -> DecoderHead:
    """MA-Net (doi:10.1109/ACCESS.2020.3025372): U-Net with attention between positions of c5 and between channels."""
    decoder = MAnetDecoder(
        encoder_channels(context),
        options.channels,
        use_norm=NORMS[options.norm],
        pab_channels=options.attention_channels,
        interpolation_mode=options.interpolation,
    )
    grid = halving("manet", context, LEVELS)
    return initialised(DecoderHead("manet", decoder, last_layer(options.channels[-1], context, 3), grid=grid))


def pan(options: options_of.PanOptions, context: HeadContext) -> DecoderHead:
    """Pyramid attention network (arXiv:1805.10180): attention over three poolings of c5, guiding c4, c3 and c2."""
    decoder = PANDecoder(encoder_channels(context), 5, options.channels, interpolation_mode=options.interpolation)
    last = last_layer(options.channels, context, 3)
    return initialised(DecoderHead("pan", decoder, last, least=8, pooled_norm=True))


def upernet(options: options_of.UperOptions, context: HeadContext) -> DecoderHead:
    """UPerNet (arXiv:1807.10221): PSPNet's pooling on c5, and a feature pyramid of c2 … c5."""
    decoder = UPerNetDecoder(encoder_channels(context), decoder_channels=options.channels, use_norm=NORMS[options.norm])
    last = last_layer(options.channels, context, 1)
    return initialised(DecoderHead("upernet", decoder, last, pooled_norm=options.norm == "batchnorm"))


def segformer(options: options_of.SegformerOptions, context: HeadContext) -> DecoderHead:
    """SegFormer's decoder (arXiv:2105.15203): every level projected, enlarged to a quarter of the images, and fused."""
    decoder = SegformerDecoder(encoder_channels(context), segmentation_channels=options.channels)
    return initialised(DecoderHead("segformer", decoder, last_layer(options.channels, context, 1)))
