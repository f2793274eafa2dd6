"""The decoders of segmentation-models-pytorch, against its own models and on backbones of every kind."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest
import segmentation_models_pytorch as smp
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from ftengine.errors import FtengineError
from ftengine.protocols import BackboneContext, Batch, Frame, HeadContext, LabelMap
from ftengine_segmentation import head_options
from ftengine_segmentation.head_specs import HEADS
from ftengine_torchvision import backbones
from ftengine_torchvision.plugin import register_backbones

SPECS = {spec.name: spec for spec in HEADS if spec.factory.startswith("ftengine_segmentation.decoders:")}
BACKBONES = {spec.name: spec for spec in register_backbones()}
CLASSES = ("a", "b", "c")
CHANNELS = {"c1": 16, "c2": 24, "c3": 32, "c4": 48, "c5": 64}
STRIDES = {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32}
POOLED_NORM = {"deeplabv3plus", "pan", "upernet"}
"""Those that normalise after global pooling."""
DOUBLING = {"unetplusplus", "fpn", "linknet", "manet"}
"""Those whose blocks enlarge by 2."""

THEIRS = {
    "unet": (smp.Unet, {}),
    "unetplusplus": (smp.UnetPlusPlus, {}),
    "fpn": (smp.FPN, {"upsampling": 1}),
    "pspnet": (smp.PSPNet, {"encoder_depth": 5, "upsampling": 1}),
    "deeplabv3plus": (smp.DeepLabV3Plus, {"upsampling": 1}),
    "linknet": (smp.Linknet, {}),
    "manet": (smp.MAnet, {}),
    "pan": (smp.PAN, {"upsampling": 1}),
    "upernet": (smp.UPerNet, {"upsampling": 1}),
    "segformer": (smp.Segformer, {"upsampling": 1}),
}


def head_of(name: str, channels=CHANNELS, strides=STRIDES, /, **own) -> nn.Module:
    spec = SPECS[name]
    module, factory = spec.factory.split(":")
    context = HeadContext(channels, strides, SimpleNamespace(labels=LabelMap(CLASSES, ignore=255)), "some")
    return getattr(import_module(module), factory)(spec.options(**own), context)


def features_of(batch: Batch, channels=CHANNELS, strides=STRIDES) -> dict[str, Tensor]:
    count, _, height, width = batch.images.shape
    generator = torch.Generator().manual_seed(0)
    return {
        level: torch.randn(count, channels[level], height // stride, width // stride, generator=generator)
        for level, stride in strides.items()
    }


def batch_of(count: int = 2, height: int = 64, width: int = 64) -> Batch:
    images = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    return Batch(images, {}, [str(i) for i in range(count)], [Frame.whole(height, width)] * count)


def size_for(name: str, stride: int = 32) -> int:
    """PAN pools c5 three times."""
    return 8 * stride if name == "pan" else 64


def test_these_are_all() -> None:
    assert set(SPECS) == set(THEIRS)
    assert all(spec.windows for spec in HEADS)


@pytest.mark.parametrize("name", SPECS)
def test_it_is_their_model_up_to_the_last_enlargement(name: str) -> None:
    torch.manual_seed(0)
    kind, arguments = THEIRS[name]
    theirs = kind("resnet18", encoder_weights=None, classes=len(CLASSES), **arguments)
    stride = theirs.encoder.output_stride
    batch = batch_of(2, size_for(name, stride), 128)
    levels = ("c1", "c2", "c3", "c4", "c5")
    channels = dict(zip(levels, theirs.encoder.out_channels[1:], strict=True))
    head = head_of(name, channels, {level: min(2**i, stride) for i, level in enumerate(levels, start=1)})
    state = theirs.state_dict()
    head.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("encoder.")})
    for training in (True, False):
        theirs.train(training)
        head.train(training)
        with torch.no_grad():
            features = dict(zip(levels, theirs.encoder(batch.images)[1:], strict=True))
            torch.manual_seed(1)  # for dropout
            expected = theirs.segmentation_head(theirs.decoder([batch.images, *features.values()]))
            torch.manual_seed(1)
            output = head(features, batch)
        expected = functional.interpolate(expected, batch.images.shape[-2:], mode="bilinear", align_corners=False)
        assert set(output) == {"logits"}
        torch.testing.assert_close(output["logits"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_it_trains_on_two_images_and_leaves_the_features_alone(name: str) -> None:
    torch.manual_seed(0)
    head, batch = head_of(name), batch_of(2, size_for(name), size_for(name))
    features = {level: feature.requires_grad_() for level, feature in features_of(batch).items()}
    before = {level: feature.detach().clone() for level, feature in features.items()}
    output = head(features, batch)
    assert output["logits"].shape == (2, len(CLASSES), *batch.images.shape[-2:])
    output["logits"].square().mean().backward()
    assert [key for key, parameter in head.named_parameters() if parameter.grad is None] == []
    assert all(features[level].grad.abs().sum() > 0 for level in SPECS[name].levels)
    assert all(torch.equal(features[level], before[level]) for level in features)


@pytest.mark.parametrize("name", SPECS)
def test_one_image(name: str) -> None:
    head, batch = head_of(name), batch_of(1, size_for(name), size_for(name))
    features = features_of(batch)
    if name in POOLED_NORM:
        with pytest.raises(FtengineError, match=rf"head {name}: .*at least 2 images at a time, got 1"):
            head(features, batch)
    else:
        head(features, batch)["logits"].sum().backward()
    head.eval()
    (prediction,) = head.predict(head(features, batch), batch)
    assert prediction["mask"].shape == batch.images.shape[-2:]
    assert prediction["mask"].dtype == torch.uint8


@pytest.mark.parametrize("name", SPECS)
def test_autocast_gives_nearly_the_same(name: str) -> None:
    torch.manual_seed(0)
    head, batch = head_of(name).eval(), batch_of(1, size_for(name), size_for(name))
    features = features_of(batch)
    with torch.inference_mode():
        expected = head(features, batch)["logits"]
        with torch.autocast("cpu", torch.bfloat16):
            logits = head({level: feature.bfloat16() for level, feature in features.items()}, batch)["logits"]
    assert logits.dtype == torch.float32
    assert (logits - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("name", SPECS)
def test_a_backbone_without_c1(name: str) -> None:
    strides = {level: stride for level, stride in STRIDES.items() if level != "c1"}
    channels = {level: CHANNELS[level] for level in strides}
    head, batch = head_of(name, channels, strides), batch_of(2, size_for(name), size_for(name))
    logits = head(features_of(batch, channels, strides), batch)["logits"]
    assert logits.shape == (2, len(CLASSES), *batch.images.shape[-2:])
    logits.square().mean().backward()


@pytest.mark.parametrize("strides", [(2, 4, 8, 16, 16), (2, 4, 8, 8, 8), (16, 16, 16, 16, 16)], ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_other_strides_do_or_are_refused(name: str, strides: tuple[int, ...]) -> None:
    own = dict(zip(STRIDES, strides, strict=True))
    if name in DOUBLING:
        with pytest.raises(FtengineError, match=rf"head {name}: the stride must double .*c5 {strides[-1]}.*unet"):
            head_of(name, CHANNELS, own)
        return
    size = max(64, size_for(name, strides[-1]))
    head, batch = head_of(name, CHANNELS, own), batch_of(2, size, size)
    assert head(features_of(batch, CHANNELS, own), batch)["logits"].shape == (2, len(CLASSES), size, size)


@pytest.mark.parametrize("name", SPECS)
def test_maps_off_the_grid(name: str) -> None:
    """Inception's convolutions are not padded: these are its sizes for 288 pixels."""
    head, batch = head_of(name).eval(), batch_of(1, 288, 288)
    sizes = {"c1": 141, "c2": 68, "c3": 33, "c4": 16, "c5": 8 if name == "pan" else 7}
    features = {level: torch.randn(1, CHANNELS[level], size, size) for level, size in sizes.items()}
    with torch.inference_mode():
        assert head(features, batch)["logits"].shape == (1, len(CLASSES), 288, 288)


@pytest.mark.usefixtures("narrow_vit")
@pytest.mark.parametrize(
    ("backbone", "name", "size"),
    [("convnext_tiny", "unetplusplus", 64), ("vit_b_32", "upernet", 64), ("inception_v3", "linknet", 96)],
)
def test_real_backbones(backbone: str, name: str, size: int) -> None:
    spec = BACKBONES[backbone]
    model = getattr(backbones, backbone)(spec.options(), BackboneContext(levels=SPECS[name].levels)).eval()
    head, batch = head_of(name, model.channels, model.strides).eval(), batch_of(1, size, size)
    with torch.inference_mode():
        assert head(model(batch.images), batch)["logits"].shape == (1, len(CLASSES), size, size)


def test_windows_of_any_size() -> None:
    """A window need not be a multiple of the coarsest stride: levels are then rounded up."""
    head, batch = head_of("unetplusplus").eval(), batch_of(1, 100, 72)
    features = {
        level: torch.randn(1, CHANNELS[level], -(-100 // stride), -(-72 // stride)) for level, stride in STRIDES.items()
    }
    assert head(features, batch)["logits"].shape == (1, len(CLASSES), 100, 72)


def test_pan_says_how_large_images_must_be() -> None:
    batch = batch_of(2, 64, 256)
    with pytest.raises(FtengineError, match=r"head pan: needs a map c5 of at least 8x8, got 2x8 from images of 64x256"):
        head_of("pan")(features_of(batch), batch)


def test_pspnet_needs_channels_that_its_four_branches_can_share() -> None:
    with pytest.raises(FtengineError, match="multiple of 4 channels, found 66"):
        head_of("pspnet", {**CHANNELS, "c5": 66})


@pytest.mark.parametrize("norm", ["instancenorm", "none"])
@pytest.mark.parametrize("name", ["unet", "unetplusplus", "pspnet", "linknet", "manet"])
def test_norms(name: str, norm: str) -> None:
    head, batch = head_of(name, norm=norm), batch_of()
    kinds = {type(module) for module in head.modules()}
    assert nn.BatchNorm2d not in kinds
    assert (nn.InstanceNorm2d in kinds) == (norm == "instancenorm")
    assert head(features_of(batch), batch)["logits"].isfinite().all()


def test_upernet_without_norm_still_normalises_its_fused_pooling_only() -> None:
    head, batch = head_of("upernet", norm="none"), batch_of(1)
    assert [key for key, module in head.named_modules() if isinstance(module, nn.BatchNorm2d)] == [
        "decoder.psp.out_conv.1"
    ]
    head(features_of(batch), batch)["logits"].sum().backward()


def test_options_reach_the_decoders() -> None:
    unet = head_of("unet", channels=[40, 32, 24, 20, 18], attention="scse", center=True, interpolation="bilinear")
    assert [block.conv1[0].out_channels for block in unet.decoder.blocks] == [40, 32, 24, 20, 18]
    assert {block.interpolation_mode for block in unet.decoder.blocks} == {"bilinear"}
    assert "SCSEModule" in {type(module).__name__ for module in unet.modules()}
    assert len(list(unet.decoder.center.parameters())) > 0
    fpn = head_of("fpn", pyramid_channels=20, segmentation_channels=32, merge="cat", dropout=0.4)
    assert fpn.segmentation_head[0].in_channels == 4 * 32
    assert fpn.decoder.dropout.p == 0.4
    plus = head_of("deeplabv3plus", atrous_rates=[2, 3, 5], separable=False, dropout=0.1, channels=24)
    rates = {module.dilation[0] for module in plus.modules() if isinstance(module, nn.Conv2d)}
    assert rates == {1, 2, 3, 5}
    manet = head_of("manet", attention_channels=10, channels=[9, 8, 7, 6, 5])
    assert manet.decoder.center.top_conv.out_channels == 10
    assert manet.segmentation_head[0].in_channels == 5


@pytest.mark.parametrize("name", SPECS)
def test_first_values_are_theirs(name: str) -> None:
    """Their last layer begins with biases of 0, but for DeepLab's, which they leave as torch makes it."""
    bias = head_of(name).segmentation_head[0].bias
    assert bool(bias.eq(0).all()) == (name != "deeplabv3plus")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (head_options.UnetOptions, {"channels": [8, 8, 8, 8]}, "at least 5 items"),
        (head_options.UnetOptions, {"attention": "scse", "channels": [64, 32, 16, 16, 8]}, "at least 16, found 8"),
        (head_options.FpnOptions, {"segmentation_channels": 48}, "multiple of 32"),
        (head_options.DeepLabPlusOptions, {"atrous_rates": [6, 12]}, "at least 3 items"),
        (head_options.UperOptions, {"norm": "instancenorm"}, "'batchnorm' or 'none'"),
    ],
)
def test_options_that_cannot_work_are_refused(kind, values, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kind(**values)
