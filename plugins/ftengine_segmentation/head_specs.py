"""What is said of each head. Nothing here imports torch."""

from __future__ import annotations

from ftengine.plugin import HeadSpec, Options
from ftengine_segmentation import head_options as options

PYRAMID = ("c2", "c3", "c4", "c5")


def _torchvision(name: str, summary: str, own: type[Options]) -> HeadSpec:
    return HeadSpec(
        name=name,
        task="segmentation",
        factory=f"ftengine_segmentation.heads:{name}",
        summary=summary,
        options=own,
        levels=("c5",),
        weights=("coco",),
        windows=True,
    )


def _decoder(
    name: str, summary: str, own: type[Options], levels: tuple[str, ...] = PYRAMID, least: int | None = None
) -> HeadSpec:
    return HeadSpec(
        name=name,
        task="segmentation",
        factory=f"ftengine_segmentation.decoders:{name}",
        summary=summary,
        options=own,
        levels=levels,
        windows=True,
        example_config={} if least is None else {"image": {"size": least}},
    )


HEADS = (
    _torchvision("fcn", "FCN: two convolutions on c5; best with a backbone of output_stride 8.", options.FcnOptions),
    _torchvision(
        "deeplabv3",
        "DeepLab v3: dilated convolutions and global pooling on c5; best with a backbone of output_stride 8.",
        options.DeepLabOptions,
    ),
    _decoder("unet", "U-Net: from c5 up to full size, each level beside the block of its size.", options.UnetOptions),
    _decoder("unetplusplus", "U-Net++: U-Net with nested blocks between the levels.", options.UnetOptions),
    _decoder("fpn", "Feature pyramid of c2 to c5, whose levels are merged at the size of c2.", options.FpnOptions),
    _decoder("pspnet", "PSPNet: c5 beside its means over 1, 4, 9 and 36 parts.", options.PspOptions, ("c5",)),
    _decoder(
        "deeplabv3plus",
        "DeepLab v3+: dilated convolutions on c5, refined with c2; best with a backbone of output_stride 16.",
        options.DeepLabPlusOptions,
        ("c2", "c5"),
    ),
    _decoder("linknet", "LinkNet: transposed convolutions, to which the levels are added.", options.LinknetOptions),
    _decoder("manet", "MA-Net: U-Net with attention between positions and between channels.", options.ManetOptions),
    _decoder(
        "pan",
        "Pyramid attention network, for images of at least 8 positions a side in c5.",
        options.PanOptions,
        least=256,
    ),
    _decoder("upernet", "UPerNet: pyramid pooling on c5 and a feature pyramid of c2 to c5.", options.UperOptions),
    _decoder("segformer", "SegFormer's decoder: all levels projected and fused.", options.SegformerOptions),
)
