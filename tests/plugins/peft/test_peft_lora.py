"""LoRA: what it adapts, that it changes nothing at first, trains alone, and is what it is merged to."""

import copy
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftengine.errors import FtengineError
from ftengine.plugin import Options
from ftengine.protocols import AdapterContext, Backbone, BackboneContext
from ftengine_peft.layers import find
from ftengine_peft.lora import lora
from ftengine_peft.plugin import LoraOptions
from ftengine_timm.backbone import build
from ftengine_timm.plugin import TimmOptions
from ftengine_torchvision import backbones
from ftengine_torchvision.plugin import register_backbones

pytestmark = pytest.mark.usefixtures("narrow_vit")

SIZE = 32
OPTIONS = {spec.name: spec.options for spec in register_backbones()}
NETWORKS = [
    "resnet18",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "timm:vit_tiny_patch16_224",
    "timm:tf_efficientnet_b0",
    "timm:eva02_tiny_patch14_224",
]


def make(name, last="c5", **options):
    """A network up to the level `last`, with random weights and BatchNorm statistics, in eval mode."""
    torch.manual_seed(0)
    context = BackboneContext(None, (last,))
    if name.startswith("timm:"):
        backbone = build(TimmOptions(model=name.removeprefix("timm:"), **options), context)
    else:
        backbone = getattr(backbones, name)(OPTIONS[name](**options), context)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return backbone.eval()


def images(batch=2, size=SIZE, seed=1):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def size_for(name):
    """EVA takes images of one size only."""
    return 224 if "eva" in name else SIZE


def adapted(backbone, size=SIZE, **options):
    adapter = lora(LoraOptions(**options), AdapterContext(torch.zeros(1, 3, size, size)))
    adapter.apply(backbone)
    return adapter


def trainable(backbone):
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def disturb(backbone):
    """Give every update some size: B is no longer zero."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02, generator=generator)


def outputs(backbone, size=SIZE):
    with torch.no_grad():
        return backbone(images(size=size))


def final(backbone):
    """The last level."""
    return list(backbone(images()).values())[-1]


class Plain(Backbone):
    """Given stages that hand on [B, C, H, W], in eval mode."""

    def __init__(self, **stages):
        super().__init__(stages, dict.fromkeys(stages, 1), dict.fromkeys(stages, 1))
        self.eval()


class Reads(nn.Module):
    """A linear layer of the channels whose weight is read by others; it is never called."""

    def __init__(self, channels=3, outputs=4):
        super().__init__()
        self.inner = nn.Linear(channels, outputs)

    def forward(self, x):
        return F.linear(x.movedim(1, -1), self.inner.weight, self.inner.bias).movedim(-1, 1)


class Encoder(nn.Module):
    """torch's own transformer layer, which in evaluation takes a way of its own through its layers' weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])


# --- real networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_it_begins_as_the_backbone_and_is_what_it_is_merged_to(name):
    size = size_for(name)
    backbone = make(name)
    names, before = backbone.state_dict().keys(), outputs(backbone, size)
    kinds = {key: type(module) for key, module in backbone.named_modules()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter = adapted(backbone, size)
    first = outputs(backbone, size)
    assert all(torch.equal(first[level], before[level]) for level in before)
    assert not backbone.training

    disturb(backbone)
    unmerged = outputs(backbone, size)
    for level in before:
        assert (unmerged[level] - before[level]).abs().max() > 1e-2 * before[level].abs().max(), "the updates matter"
    adapter.merge(backbone)
    merged = outputs(backbone, size)
    for level in before:
        assert (merged[level] - unmerged[level]).abs().max() < 1e-5 * unmerged[level].abs().max(), level
    assert backbone.state_dict().keys() == names
    assert {key: type(module) for key, module in backbone.named_modules()} == kinds


@pytest.mark.parametrize(("name", "last"), [("resnet18", "c5"), ("vit_b_16", "c2"), ("swin_t", "c2")])
def test_only_its_own_parameters_move_over_several_steps(name, last):
    backbone = make(name, last)
    adapted(backbone, rank=2)
    backbone.train()
    for module in backbone.modules():  # as a run does with what is frozen
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    start = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    own = trainable(backbone)
    assert own
    assert all("lora_" in key for key in own)
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        features = backbone(images(seed=step)).values()
        sum((feature - 1).pow(4).mean() for feature in features).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {key for key, tensor in backbone.state_dict().items() if not torch.equal(tensor, start[key])}
    assert moved == own


@pytest.mark.parametrize(("name", "last"), [("resnet18", "c5"), ("vit_b_16", "c2")])
def test_gradients_are_those_of_the_formula(name, last):
    """W + (alpha / rank) B A, computed without the adapter: the gradient of B is (alpha / rank) dW A^T."""
    plain, backbone = make(name, last), make(name, last)
    adapted(backbone, rank=2, alpha=6.0)
    final(backbone).square().sum().backward()
    final(plain).square().sum().backward()
    layers = (
        {"c2.1.conv1": "stages.c2.1.0.conv1", "c5.1.conv2": "stages.c5.1.conv2"}
        if name == "resnet18"
        else {"c2.0.mlp.0": "stages.c2.0.mlp.0"}
    )
    for path in layers.values():
        module = backbone.get_submodule(path)
        down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
        gradient = plain.get_submodule(path).weight.grad.flatten(1)
        expected = 3 * gradient @ down.flatten(1).T
        torch.testing.assert_close(up.grad.flatten(1), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    if name == "vit_b_16":
        attention = backbone.get_submodule("stages.c2.0.self_attention")
        update = attention.parametrizations.in_proj_weight[0]
        expected = 3 * plain.get_submodule("stages.c2.0.self_attention").in_proj_weight.grad @ update.lora_A.T
        torch.testing.assert_close(update.lora_B.grad, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(("name", "last"), [("resnet18", "c5"), ("vit_b_16", "c2")])
def test_copies_and_state_dicts_are_whole(name, last):
    backbone = make(name, last)
    adapter = adapted(backbone, rank=2)
    disturb(backbone)
    expected = final(backbone)
    copied = copy.deepcopy(backbone)
    other = make(name, last)
    adapted(other, rank=2)
    assert other.state_dict().keys() == backbone.state_dict().keys()
    other.load_state_dict(backbone.state_dict())
    assert torch.equal(final(copied), expected)
    assert torch.equal(final(other), expected)
    adapter.merge(copied)
    assert torch.equal(final(backbone), expected), "merging a copy leaves the original"
    torch.testing.assert_close(final(copied), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "last"), [("resnet18", "c5"), ("vit_b_16", "c2")])
def test_in_bf16_and_channels_last(name, last):
    backbone = make(name, last)
    adapted(backbone, rank=2)
    disturb(backbone)
    single = final(backbone)
    if name == "resnet18":
        backbone.to(memory_format=torch.channels_last)
        torch.testing.assert_close(final(backbone), single, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = final(backbone)
        half.float().square().mean().backward()
    assert (half.float() - single).norm() < 0.05 * single.norm()
    assert {parameter.grad.dtype for parameter in backbone.parameters() if parameter.requires_grad} == {torch.float32}


def test_merging_a_network_in_channels_last():
    backbone = make("resnet18")
    adapter = adapted(backbone, rank=2)
    disturb(backbone)
    backbone.to(memory_format=torch.channels_last)
    unmerged = final(backbone)
    adapter.merge(backbone)
    torch.testing.assert_close(final(backbone), unmerged, rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_updates():
    first, second = make("vit_b_16", "c2"), make("vit_b_16", "c2")
    for backbone in (first, second):
        torch.manual_seed(3)
        adapted(backbone, rank=2)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


# --- what is adapted ---------------------------------------------------------------------------------------------


def test_attention_that_is_never_called_is_adapted_where_it_is_read():
    found = find(make("vit_b_16", "c2"), torch.zeros(1, 3, SIZE, SIZE))
    assert found.others == {}
    by_way = {name.split(".", 2)[2]: layer.runs for name, layer in found.layers.items() if name.startswith("c2.")}
    assert by_way == {
        "self_attention.in_proj": False,
        "self_attention.out_proj": False,
        "mlp.0": True,
        "mlp.3": True,
    }
    swin = find(make("swin_t", "c3"), torch.zeros(1, 3, SIZE, SIZE)).layers
    assert {name.split(".")[-1] for name, layer in swin.items() if not layer.runs} == {"qkv", "proj"}


def test_targets_choose_by_glob():
    backbone = make("vit_b_16")
    adapted(backbone, rank=2, targets=("c[23].*.in_proj", "c5.2.mlp.0"))
    places = {name.split("lora_")[0].removeprefix("stages.") for name in trainable(backbone)}
    blocks = [
        f"c{stage}.{block}.self_attention.parametrizations.in_proj_weight.0." for stage in (2, 3) for block in range(3)
    ]
    assert places == {*blocks, "c5.2.mlp.0."}
    backbone = make("resnet18")
    adapted(backbone, targets=("*.conv2",))
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trainable(backbone)} == {"conv2"}


def test_a_weight_that_is_read_gets_an_update_that_merges():
    torch.manual_seed(0)
    backbone = check_merge(Plain(c1=Reads(), c2=Encoder()))
    updated = {name.partition("parametrizations")[0] for name in trainable(backbone) if "parametrizations" in name}
    layers = ("linear1.", "linear2.", "self_attn.", "self_attn.out_proj.")
    assert updated == {"stages.c1.inner.", *(f"stages.c2.layer.{layer}" for layer in layers)}


def check_merge(backbone, size=4, **options):
    adapter = adapted(backbone, size, rank=2, **options)
    disturb(backbone)
    for way in (torch.no_grad, torch.enable_grad):
        with way():
            unmerged = {level: feature.detach() for level, feature in backbone(images(size=size)).items()}
        merged = copy.deepcopy(backbone)
        adapter.merge(merged)
        with torch.no_grad():
            for level, feature in merged(images(size=size)).items():
                torch.testing.assert_close(feature, unmerged[level], rtol=1e-5, atol=1e-5)
    assert not [name for name in merged.state_dict() if "lora" in name or "parametrizations" in name]
    return backbone


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(3, 8, (1, 3), padding="same"),
        nn.Conv2d(3, 8, 3, dilation=2, padding=2),
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
    ],
    ids=["stride", "same", "dilation", "reflect"],
)
def test_convolutions_of_all_kinds_merge(layer):
    backbone = check_merge(Plain(c1=copy.deepcopy(layer)))
    assert len(trainable(backbone)) == 2


def test_a_dilated_network():
    backbone = make("resnet18", output_stride=8)
    adapter = adapted(backbone, rank=2)
    disturb(backbone)
    unmerged = final(backbone)
    adapter.merge(backbone)
    torch.testing.assert_close(final(backbone), unmerged, rtol=1e-5, atol=1e-5)


def test_convolutions_in_groups_are_left_as_they_are():
    backbone = make("convnext_tiny")
    found = find(backbone, torch.zeros(1, 3, SIZE, SIZE))
    grouped = {name for name, module in backbone.stages.named_modules() if getattr(module, "groups", 1) > 1}
    assert len(grouped) == 18
    assert found.others.keys() == grouped
    adapted(backbone)
    assert not any(
        "lora" in child for name in grouped for child, _ in backbone.stages.get_submodule(name).named_modules()
    )


def test_a_layer_in_two_places_is_replaced_in_both():
    layer = nn.Conv2d(3, 3, 1)
    backbone = check_merge(Plain(c1=nn.Sequential(layer, nn.Sequential(layer)), c2=nn.Conv2d(3, 2, 1)))
    assert backbone.stages["c1"][0] is backbone.stages["c1"][1][0]


def test_weights_that_an_update_would_not_suit_stay_as_they_are():
    tied = nn.Conv2d(3, 3, 1)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
    other = nn.Conv2d(3, 3, 1)
    other.weight = tied.weight
    fixed = nn.Conv2d(3, 3, 1)
    fixed.weight.requires_grad_(False)
    found = find(Plain(c1=nn.Sequential(tied, other, fixed, normed, nn.Conv2d(3, 2, 1))), torch.zeros(1, 3, 4, 4))
    assert list(found.layers) == ["c1.4"]
    assert found.others == {
        "c1.0": "it shares its weight with another layer",
        "c1.1": "it shares its weight with another layer",
        "c1.2": "its weight never trains",
        "c1.3": "its weight is computed from others",
    }


def test_finding_leaves_the_backbone_as_it_was():
    backbone = make("resnet18").train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    find(backbone, torch.zeros(1, 3, SIZE, SIZE))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert all(module.training for module in backbone.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in backbone.parameters())
    assert not any("forward" in module.__dict__ for module in backbone.modules())


def test_dropout_is_of_what_enters_the_update():
    backbone = Plain(c1=nn.Conv2d(3, 4, 1))
    adapted(backbone, 4, dropout=0.5)
    torch.manual_seed(0)
    pixels = images(size=4)
    plain = backbone(pixels)["c1"]
    backbone.train()
    assert torch.equal(backbone(pixels)["c1"], plain), "B is zero"
    disturb(backbone)
    assert not torch.equal(backbone(pixels)["c1"], backbone(pixels)["c1"])
    backbone.eval()
    assert torch.equal(backbone(pixels)["c1"], backbone(pixels)["c1"])


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (
            ("c2.1.convv1",),
            ["adapter.targets: no linear or convolutional layer is called 'c2.1.convv1'", "did you mean"],
        ),
        (("*", "zzz"), ["is called 'zzz'", "there are: c1.0, "]),
        (("C1.*",), ["is called 'C1.*'"]),
    ],
)
def test_a_target_that_matches_nothing(targets, words):
    backbone = make("resnet18")
    with pytest.raises(FtengineError) as error:
        adapted(backbone, targets=targets)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert trainable(backbone) == {name for name, _ in backbone.named_parameters()}, "nothing was changed"


def test_a_target_that_matches_only_what_cannot_be_adapted():
    with pytest.raises(FtengineError, match=r"nothing that 'c2\.\*\.block\.0' matches can be adapted") as error:
        adapted(make("convnext_tiny"), targets=("c2.*.block.0",))
    assert "c2.1.0.block.0: it is a convolution in groups" in str(error.value)


@pytest.mark.parametrize("stage", [nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3)])
def test_a_backbone_with_nothing_to_adapt(stage):
    with pytest.raises(FtengineError) as error:
        adapted(Plain(c1=stage), 4)
    assert "no linear or convolutional layer that can be adapted" in str(error.value)
    assert "freeze bias_only, norm_only" in str(error.value)


def test_options():
    assert LoraOptions() == LoraOptions(rank=8, alpha=16.0, dropout=0.0, targets=("*",))
    assert issubclass(LoraOptions, Options)
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LoraOptions(**wrong)


@pytest.mark.slow
def test_importing_it_asks_nothing_of_the_network():
    """peft imports transformers, which knows the hub."""
    code = """
import socket, sys
def refuse(*_, **__): raise AssertionError("a connection")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import ftengine_peft.lora
print(sorted(name for name in ("peft", "transformers") if name in sys.modules))
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "peft" in result.stdout
