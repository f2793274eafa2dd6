"""Torchvision's backbones against torchvision's own models, one small member of each family; all of them when slow."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision import models

from ftengine.errors import FtengineError, WeightsError
from ftengine.protocols import Backbone, BackboneContext
from ftengine_torchvision import backbones
from ftengine_torchvision.catalogue import FAMILY
from ftengine_torchvision.plugin import register_backbones

SPECS = {spec.name: spec for spec in register_backbones()}
SMALL = (
    "resnet18",
    "resnet50",
    "vgg11_bn",
    "inception_v3",
    "convnext_tiny",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "vit_b_32",
    "swin_t",
    "swin_v2_t",
)
SIZES = {"inception": ((128, 160),), "vit": ((224, 224),)}


def build(name: str, levels: tuple[str, ...] | None = None, weights: str | None = None, **options) -> Backbone:
    spec = SPECS[name]
    module, attribute = spec.factory.split(":")
    assert module == backbones.__name__
    context = BackboneContext(weights=weights, levels=levels)
    return getattr(backbones, attribute)(spec.options(**options), context).eval()


def stock(name: str, backbone: Backbone, **arguments) -> nn.Module:
    """Torchvision's own model with the backbone's tensors, each under its published name."""
    extra = {"init_weights": False} if name == "inception_v3" else {}
    # Nothing is drawn that is then replaced; only RegNet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        model = models.get_model(name, weights=None, **extra, **arguments).eval()
    state = backbone.state_dict()
    result = model.load_state_dict({backbone.published[key]: state[key] for key in state}, strict=False, assign=True)
    assert not result.unexpected_keys
    # Torch does not count the counter of batches as missing.
    assert set(result.missing_keys) == {key for key in backbone.discarded if not key.endswith("num_batches_tracked")}
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    # Some families start their classifier at zero, which would agree with anything.
    nn.init.normal_(head.to_empty(device="cpu").weight, std=0.05)
    nn.init.normal_(head.bias)
    return model


def randomise(backbone: Backbone) -> None:
    """Give normalisation layers and layer scales values under which a wrong order of layers shows."""
    generator = torch.Generator().manual_seed(1)
    for key, tensor in backbone.state_dict().items():
        if key.endswith("running_mean"):
            tensor.uniform_(-0.1, 0.1, generator=generator)
        elif key.endswith("running_var") or "layer_scale" in key:
            tensor.uniform_(0.3, 1.0, generator=generator)


def logits(model: nn.Module, backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    return head(backbone(images)[backbone.levels[-1]].mean((2, 3)))


def check(name: str) -> None:
    torch.manual_seed(0)
    backbone = build(name)
    randomise(backbone)
    model = stock(name, backbone)
    assert backbone.levels == SPECS[name].levels
    assert backbone.url is None
    parity = SIZES.get(FAMILY[name], ((64, 96),))[0]
    with torch.inference_mode():
        images = torch.randn(2, 3, *parity)
        expected = model(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(logits(model, backbone, images), expected, rtol=1e-5, atol=1e-5)
        for size in ((128, 128), (128, 192)):
            features = backbone(torch.randn(1, 3, *size))
            assert tuple(features) == backbone.levels
            for level, feature in features.items():
                assert feature.shape[:2] == (1, backbone.channels[level])
                stride = backbone.strides[level]
                grid = (1, 1) if stride == 0 else tuple(side // stride for side in size)
                if name == "inception_v3":
                    assert all(0 <= a - b <= 5 for a, b in zip(grid, feature.shape[2:], strict=True))
                else:
                    assert tuple(feature.shape[2:]) == grid


@pytest.mark.usefixtures("narrow_vit")
@pytest.mark.parametrize("name", SMALL)
def test_is_the_stock_model_without_its_last_layer(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SPECS) - set(SMALL) | {"vit_b_32"}))
def test_is_the_stock_model_without_its_last_layer_all(name: str) -> None:
    check(name)


def test_every_family_is_tested_by_default() -> None:
    assert {FAMILY[name] for name in SMALL} == set(FAMILY.values())


def test_the_table_of_weights_is_torchvisions() -> None:
    wanted = ("res", "wide", "vgg", "inception", "convnext", "efficientnet", "mobilenet", "regnet", "vit", "swin")
    names = [name for name in models.list_models(module=models) if name.startswith(wanted)]
    assert sorted(SPECS) == sorted(names)
    for name, spec in SPECS.items():
        enum = models.get_model_weights(name)
        assert set(spec.weights) == {member.name for member in enum}
        assert spec.default_weights == enum.DEFAULT.name


def test_listing_leaves_torch_unimported() -> None:
    code = (
        "import sys; from ftengine_torchvision import plugin; n = len(list(plugin.register_backbones())); "
        "assert n > 60; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_random_weights_are_torchvisions_own() -> None:
    torch.manual_seed(3)
    model = models.inception_v3(weights=None, init_weights=True)
    torch.manual_seed(3)
    backbone = build("inception_v3", ("c5",))
    published = model.state_dict()
    assert all(torch.equal(tensor, published[backbone.published[key]]) for key, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_stages_after_the_last_level_in_use_are_dropped(name: str) -> None:
    full = build(name)
    backbone = build(name, ("c3", "c2"))
    kept = full.levels[: full.levels.index("c3") + 1]
    assert backbone.levels == kept == tuple(backbone.strides)
    assert tuple(backbone.stages) == kept
    dropped = {full.published[key] for key in full.published if key.split(".")[1] not in kept}
    assert set(backbone.discarded) == dropped | set(full.discarded)
    assert tuple(backbone(torch.randn(1, 3, 64, 64))) == kept


def test_a_level_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FtengineError, match="level of resnet18 'c6'"):
        build("resnet18", ("c6",))


@pytest.mark.usefixtures("narrow_vit")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("vgg11", marks=pytest.mark.slow),
        *("inception_v3", "convnext_tiny", "vit_b_32", "swin_t", "resnet18"),
    ],
)
def test_min_size_is_the_least_that_runs(name: str) -> None:
    backbone = build(name)
    least = backbone.min_size
    with torch.inference_mode():
        features = backbone(torch.randn(1, 3, least, least + 3))
        assert all(math.prod(feature.shape) for feature in features.values())
        if least > 1:
            with pytest.raises(RuntimeError):
                backbone(torch.randn(1, 3, least - 1, least + 3))


@pytest.mark.usefixtures("without_values")
def test_where_published_weights_come_from() -> None:
    resnet = build("resnet50", weights="IMAGENET1K_V2")
    assert resnet.url == models.ResNet50_Weights.IMAGENET1K_V2.url
    assert resnet.mean == (0.485, 0.456, 0.406)
    assert build("efficientnet_v2_s", weights="IMAGENET1K_V1").mean == (0.485, 0.456, 0.406)
    with pytest.raises(WeightsError, match="IMAGENET1K_V1"):
        build("resnet18", weights="IMAGENET1K_V3")


def test_inception_is_exact_on_torchvisions_preprocessing() -> None:
    """Torchvision normalises with ImageNet's statistics and undoes that inside; here the images arrive as 0.5, 0.5."""
    backbone = build("inception_v3", weights="IMAGENET1K_V1")
    for tensor in backbone.parameters():
        if tensor.ndim == 4:
            nn.init.kaiming_normal_(tensor)
    model = stock("inception_v3", backbone, transform_input=True)
    raw = torch.rand(2, 3, 96, 96)
    preset = models.Inception_V3_Weights.IMAGENET1K_V1.transforms()
    ours, theirs = (
        (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        for mean, std in ((backbone.mean, backbone.std), (preset.mean, preset.std))
    )
    with torch.inference_mode():
        expected = model(theirs)
        assert expected.std() > 1e-3
        torch.testing.assert_close(logits(model, backbone, ours), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("without_values")
def test_vgg_features_only_weights_have_no_descriptor() -> None:
    assert build("vgg16", ("c5",), weights="IMAGENET1K_FEATURES").levels[-1] == "c5"
    with pytest.raises(WeightsError, match="pooled"):
        build("vgg16", ("pooled",), weights="IMAGENET1K_FEATURES")


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0", "swin_t"])
def test_stochastic_depth_is_a_ramp_up_to_the_given_rate(name: str) -> None:
    def rates(**options) -> list[float]:
        return [m.p for m in build(name, **options).modules() if type(m).__name__ == "StochasticDepth"]

    published, given = rates(), rates(stochastic_depth=0.4)
    assert given[0] == 0
    assert max(given) == pytest.approx(0.4, rel=0.07)  # EfficientNet's ramp stops one block short of the rate
    assert given == pytest.approx([0.4 / (0.1 if name == "convnext_tiny" else 0.2) * p for p in published])


@pytest.mark.usefixtures("narrow_vit")
def test_dropout_options_reach_their_layers() -> None:
    vit = build("vit_b_32", dropout=0.1, attention_dropout=0.3)
    assert {m.p for m in vit.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert {m.dropout for m in vit.modules() if isinstance(m, nn.MultiheadAttention)} == {0.3}
    small = build("mobilenet_v3_small", dropout=0.7)
    assert [m.p for m in small.modules() if isinstance(m, nn.Dropout)] == [0.7]
