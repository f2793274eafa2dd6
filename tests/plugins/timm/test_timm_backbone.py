"""The backbone `timm` against timm's own models, without weights."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from ftengine.errors import FtengineError
from ftengine.protocols import Backbone, BackboneContext
from ftengine_timm.backbone import build
from ftengine_timm.plugin import TimmOptions, register_backbones

CHAINS = ["resnet18", "convnext_atto", "mobilenetv3_small_050", "mambaout_femto", "efficientnet_lite0"]
GRIDS = ["vit_tiny_patch16_224", "mixer_s32_224", "deit_tiny_distilled_patch16_224"]
WHOLE = ["convit_tiny", "levit_128s"]
LARGE = ["hiera_tiny_224", "eva02_tiny_patch14_224"]
MORE = [
    "regnetx_002",
    "densenet121",
    "vgg11",
    "dla34",
    "hrnet_w18_small",
    "xcit_nano_12_p16_224",
    "coat_tiny",
    "pvt_v2_b0",
    "mobilevit_xxs",
    "csatv2",
    "ghostnet_050",
    "edgenext_xx_small",
    "nfnet_f0",
    "cait_xxs24_224",
    "dpn48b",
    "fastvit_t8",
    "tiny_vit_5m_224",
    "resnetv2_50",
    "repvgg_a0",
    "vit_small_patch14_dinov2",
    "vovnet39a",
    "twins_svt_small",
    "crossvit_9_240",
    "focalnet_tiny_srf",
    "poolformer_s12",
    "davit_tiny",
    "inception_next_atto",
    "efficientformer_l1",
    "gcvit_xxtiny",
    "mvitv2_tiny",
    "visformer_tiny",
    "sequencer2d_s",
    "volo_d1_224",
    "vit_small_patch16_dinov3",
    "naflexvit_base_patch16_gap",
    "inception_v3",
    "maxvit_rmlp_pico_rw_256",
    "beit_base_patch16_224",
]


(SPEC,) = register_backbones()


def make(model: str, levels: tuple[str, ...] | None = None, weights: str | None = None, **options) -> Backbone:
    torch.manual_seed(0)
    return build(TimmOptions(model=model, **options), BackboneContext(weights=weights, levels=levels)).eval()


def stock(backbone: Backbone) -> nn.Module:
    """timm's own model with the backbone's tensors, each under its published name."""
    architecture, arguments = backbone._rebuild
    model = timm.create_model(architecture, **arguments).eval()
    state = {backbone.published[key]: tensor for key, tensor in backbone.state_dict().items()}
    result = model.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    # Torch does not count the counter of batches as missing.
    assert set(result.missing_keys) == {key for key in backbone.discarded if not key.endswith("num_batches_tracked")}
    return model


def check(name: str) -> Backbone:
    """Every level is one of timm's intermediate features, and `pooled` what timm's classifier reads."""
    backbone = make(name)
    model = stock(backbone)
    size = model.pretrained_cfg["input_size"][-2:]
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        features = backbone(images)
        final = model.forward_features(images)
        torch.testing.assert_close(
            features["pooled"].flatten(1), model.forward_head(final, pre_logits=True).flatten(1), rtol=1e-5, atol=1e-5
        )
        assert features["pooled"].std() > 1e-6
        own = []
        if hasattr(model, "forward_intermediates"):
            own = model.forward_intermediates(images, output_fmt="NCHW", intermediates_only=True)
        else:
            own = timm.create_model(name, features_only=True).eval()(images)
    assert tuple(features) == backbone.levels
    assert set(backbone.levels) <= set(SPEC.levels)
    for level, feature in features.items():
        assert feature.shape[:2] == (2, backbone.channels[level])
        if level == "pooled":
            assert feature.shape[2:] == (1, 1)
        elif level == "c1" and backbone.strides["c1"] == backbone.strides["c5"]:
            assert feature.shape == features["c5"].shape
        else:
            stride = backbone.strides[level]
            assert all(abs(a - b / stride) < 1 + b / 50 for a, b in zip(feature.shape[2:], size, strict=True))
            assert any(
                other.shape == feature.shape and torch.allclose(feature, other, rtol=1e-5, atol=1e-5) for other in own
            )
    return backbone


@pytest.mark.parametrize("name", [*CHAINS, pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)])
def test_a_network_is_cut_by_stride(name: str) -> None:
    backbone = check(name)
    first = 2 if name.startswith(("convnext", "mambaout", "swin")) else 1
    assert backbone.levels == (*(f"c{i}" for i in range(first, 6)), "pooled")
    assert [backbone.strides[level] for level in backbone.levels] == [*(2**i for i in range(first, 6)), 0]
    assert all(any(True for _ in backbone.stages[level].parameters()) for level in backbone.levels[:-1])
    with torch.inference_mode():
        features = backbone(torch.randn(1, 3, 96, 160))
    assert features["c5"].shape[2:] == (3, 5)


@pytest.mark.parametrize("name", GRIDS)
def test_one_grid_is_cut_into_quarters(name: str) -> None:
    backbone = check(name)
    assert backbone.levels == ("c1", "c2", "c3", "c4", "c5", "pooled")
    assert len({backbone.strides[level] for level in backbone.levels[:-1]}) == 1
    # The embedding is the first stage's alone, and every block belongs to one stage.
    assert not {key.split(".")[1] for key in backbone.state_dict() if key.endswith(("pos_embed", "cls_token"))} - {"c1"}
    depths = [
        len({key.split(".")[2] for key in backbone.stages[f"c{i}"].state_dict(prefix="x.y.")}) for i in range(2, 6)
    ]
    assert len(set(depths)) == 1


@pytest.mark.parametrize("name", [*WHOLE, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_what_cannot_be_cut_is_one_stage_and_a_descriptor(name: str) -> None:
    backbone = check(name)
    assert backbone.levels == (("c6" if name == "levit_128s" else "c5"), "pooled")
    with pytest.raises(FtengineError, match=r"offers the levels c[56], pooled, not 'c3'"):
        make(name, ("c3",))


def test_a_norm_that_belongs_to_the_classifier_is_left_out_with_it() -> None:
    backbone = make("levit_128s")
    assert not [key for key in backbone.state_dict() if "head" in key]
    assert {"head.bn.weight", "head_dist.bn.weight", "head.linear.weight"} <= set(backbone.discarded)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_many_more_models_are_timms(name: str) -> None:
    check(name)


def test_a_level_keeps_the_patches_in_their_places() -> None:
    backbone = make("vit_tiny_patch16_224")
    images = torch.randn(1, 3, 64, 96)
    changed = images.clone()
    changed[:, :, 16:32, 64:80] += 1
    with torch.inference_mode():
        difference = (backbone(changed)["c1"] - backbone(images)["c1"]).abs().amax((0, 1)) > 1e-6
    assert difference.nonzero().tolist() == [[1, 4]]


def test_stages_after_the_last_level_in_use_are_dropped() -> None:
    backbone = make("resnet18", ("c3",))
    assert tuple(backbone.stages) == backbone.levels == ("c1", "c2", "c3")
    assert "layer3.0.conv1.weight" in backbone.discarded
    assert "layer2.0.conv1.weight" not in backbone.discarded


def test_options_reach_the_model() -> None:
    dilated = make("resnet18", output_stride=8)
    assert [dilated.strides[f"c{i}"] for i in range(1, 6)] == [2, 4, 8, 8, 8]
    with torch.inference_mode():
        assert dilated(torch.randn(1, 3, 64, 64))["c5"].shape == (1, 512, 8, 8)
    assert dilated.levels == ("c1", "c2", "c3", "c4", "c5", "pooled")
    sized = make("mixer_s32_224", img_size=(64, 96))
    with torch.inference_mode():
        assert sized(torch.randn(1, 3, 64, 96))["c5"].shape[2:] == (2, 3)
    rates = [m.drop_prob for m in make("convnext_atto", drop_path_rate=0.3).modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3)


TINY_VIT = ("vit_tiny_patch16_224", {"img_size": 32})


@pytest.mark.parametrize(
    ("model", "options", "name"),
    [
        ("resnet18", {}, "drop_path_rate"),
        pytest.param("resnet18", {}, "drop_rate", marks=pytest.mark.slow),
        *(
            pytest.param(*TINY_VIT, name, marks=pytest.mark.slow)
            for name in ("drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate")
        ),
    ],
)
def test_rates_act_in_training_by_the_seed_and_nowhere_else(model: str, options: dict, name: str) -> None:
    plain, random = make(model, **options), make(model, **options, **{name: 0.5})
    drawn = torch.get_rng_state()
    make(model, **options)
    assert torch.equal(torch.get_rng_state(), drawn), "layers that are made afterwards begin as without the option"
    ours, theirs = random.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert random.published == plain.published
    images = torch.randn(4, 3, 32, 32)

    def run(backbone: Backbone, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return backbone(images)["pooled"]

    assert torch.equal(run(random, 1), run(plain, 1))
    zero = make(model, **options, **{name: 0.0})
    for backbone in (random, plain, zero):
        assert all(module.training for module in backbone.train().modules())
        for module in backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.ones_(module.weight)  # timm starts the last one of a residual branch at 0
                module.eval()
    first = run(random, 1)
    assert torch.equal(run(random, 1), first)
    assert not torch.equal(run(random, 2), first)
    assert torch.equal(run(plain, 1), run(plain, 2))
    assert torch.equal(run(zero, 3), run(plain, 3))


@pytest.mark.parametrize(
    ("model", "levels", "options"),
    [
        ("resnet18", ("c3", "c5"), {"drop_rate": 0.2}),  # it is in the head, of which nothing is left
        # It is behind what the classifier reads.
        pytest.param("levit_128s", None, {"drop_rate": 0.2}, marks=pytest.mark.slow),
        ("resnet18", ("c2",), {"drop_rate": 0.2, "drop_path_rate": 0.1}),
    ],
)
def test_a_rate_that_does_nothing_is_an_error(model: str, levels: tuple[str, ...] | None, options: dict) -> None:
    with pytest.raises(FtengineError, match=f"drop_rate of {model} does nothing in the levels in use, c"):
        make(model, levels, **options)


@pytest.mark.parametrize(
    ("model", "options", "name"),
    [
        ("resnet18", {"img_size": 64}, "img_size"),
        ("vit_tiny_patch16_224", {"output_stride": 8}, "output_stride"),
        ("resnet18", {"attn_drop_rate": 0.1}, "attn_drop_rate"),
        ("vgg11", {"drop_path_rate": 0.1}, "drop_path_rate"),
    ],
)
def test_an_option_that_the_model_lacks_is_an_error(model: str, options: dict, name: str) -> None:
    with pytest.raises(FtengineError, match=f"{model} has no {name}"):
        make(model, **options)


def test_copies_are_independent_and_train() -> None:
    backbone = make("vit_tiny_patch16_224").train()
    other = copy.deepcopy(backbone)
    other(torch.randn(2, 3, 32, 32))["pooled"].square().sum().backward()
    assert all(parameter.grad is not None for parameter in other.parameters())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_channels_last_is_for_maps_with_channels_first() -> None:
    assert make("resnet18").channels_last
    assert not make("vit_tiny_patch16_224").channels_last


def test_position_embeddings_of_another_size_are_resized_on_loading() -> None:
    backbone = make("vit_tiny_patch16_224", img_size=96)
    large = make("vit_tiny_patch16_224")
    file = {large.published[key]: tensor for key, tensor in large.state_dict().items()}
    adapted = backbone.adapt(file)
    wanted = {backbone.published[key]: tensor.shape for key, tensor in backbone.state_dict().items()}
    assert {key: adapted[key].shape for key in wanted} == wanted
    assert large.adapt(file) is file


@pytest.mark.slow
def test_a_process_that_is_forked_afterwards_can_train() -> None:
    """In a process of its own, whose first backward pass comes after the network is built."""
    code = (
        "import os, torch\n"
        "from ftengine.protocols import BackboneContext\n"
        "from ftengine_timm.backbone import build\n"
        "from ftengine_timm.plugin import TimmOptions\n"
        "build(TimmOptions(model='test_resnet'), BackboneContext())\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "def train(): torch.ones(1, requires_grad=True).sum().backward()\n"
        "train()\n"
        "assert len(os.listdir('/proc/self/task')) == before, 'threads for devices that are not there'\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    train()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_spec_is_open() -> None:
    assert SPEC.open_weights
    assert SPEC.default_weights == "default"
    assert SPEC.factory == "ftengine_timm.backbone:build"
