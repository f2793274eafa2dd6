"""Stochastic depth of the networks that torchvision builds without it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from ftengine.protocols import Backbone, BackboneContext
from ftengine_torchvision import backbones
from ftengine_torchvision.catalogue import FAMILY
from ftengine_torchvision.plugin import FAMILIES

pytestmark = pytest.mark.usefixtures("narrow_vit")

NAMES = ("resnet18", "resnet50", "regnet_y_400mf", "mobilenet_v2", "mobilenet_v3_small", "vit_b_32")
COMMON = [pytest.param(name, marks=pytest.mark.slow if name == "resnet50" else ()) for name in NAMES]
"""What holds of a basic block holds of a bottleneck; which layers these have is tested for both by default."""
BLOCKS = {"resnet18": 8, "resnet50": 16, "regnet_y_400mf": 16, "mobilenet_v2": 10, "mobilenet_v3_small": 6}


def build(name: str, levels: tuple[str, ...] | None = None, weights: str | None = None, **options) -> Backbone:
    torch.manual_seed(0)
    made = FAMILIES[FAMILY[name]].options(**options)
    return getattr(backbones, name)(made, BackboneContext(weights=weights, levels=levels))


def rates(module: nn.Module) -> list[float]:
    return [layer.p for layer in module.modules() if isinstance(layer, StochasticDepth)]


def frozen_norms(backbone: Backbone) -> Backbone:
    """In training mode but for the normalisation: only stochastic depth is random, and no image sees the others."""
    backbone.train()
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
        if isinstance(module, nn.Dropout) and not isinstance(module, StochasticDepth):
            module.p = 0.0
    return backbone


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def run(backbone: Backbone, batch: torch.Tensor, seed: int = 0, level: str = "c5") -> torch.Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return backbone(batch)[level]


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_grows_linearly_from_0_to_the_given_one(name: str) -> None:
    found = rates(build(name, stochastic_depth=0.3))
    if name == "vit_b_32":  # two branches a block
        assert found[::2] == found[1::2]
        found = found[::2]
    count = BLOCKS.get(name, 12)
    assert found == pytest.approx([0.3 * i / (count - 1) for i in range(count)])


@pytest.mark.parametrize("name", COMMON)
def test_the_ramp_is_that_of_the_whole_network_where_stages_are_left_out(name: str) -> None:
    found = rates(build(name, ("c3",), stochastic_depth=0.3))
    assert found == rates(build(name, stochastic_depth=0.3))[: len(found)]
    assert 0 < len(found) < len(rates(build(name, stochastic_depth=0.3)))


@pytest.mark.parametrize("name", COMMON)
def test_names_weights_and_evaluation_are_those_without(name: str) -> None:
    plain, deep = build(name).eval(), build(name, stochastic_depth=0.5).eval()
    ours, theirs = deep.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (deep.published, deep.discarded) == (plain.published, plain.discarded)
    assert (deep.channels, deep.strides) == (plain.channels, plain.strides)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for level in plain.levels:
        assert torch.equal(run(deep, images(), level=level), run(plain, images(), level=level))
    torch.set_rng_state(before)
    with torch.no_grad():
        deep(images())
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn in eval mode"


@pytest.mark.parametrize("name", COMMON)
def test_rate_0_is_the_network_itself_also_in_training(name: str) -> None:
    plain, zero = build(name).train(), build(name, stochastic_depth=0.0).train()
    assert rates(zero) == []
    assert str(zero) == str(plain)
    assert torch.equal(run(zero, images()), run(plain, images()))


@pytest.mark.parametrize("name", COMMON)
def test_the_seed_decides_which_images_skip_a_block(name: str) -> None:
    backbone = frozen_norms(build(name, stochastic_depth=0.8))
    same = images(1).expand(8, -1, -1, -1)
    first = run(backbone, same, seed=1)
    assert torch.equal(first, run(backbone, same, seed=1))
    assert not torch.equal(first, run(backbone, same, seed=2))
    assert len({row.sum().item() for row in first}) > 1, "each image by itself"
    assert torch.isfinite(first).all()


def residual_branch(name: str, rate: float) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """A block of the network that has a shortcut without a projection: with rate, without, and what it takes."""
    deep, plain = frozen_norms(build(name, stochastic_depth=rate)), frozen_norms(build(name))
    places = {
        "resnet18": ("c5.1", 512),
        "resnet50": ("c5.2", 2048),
        "regnet_y_400mf": ("c5.0.block4-5", 440),
        "mobilenet_v2": ("c5.2", 160),
        "mobilenet_v3_small": ("c5.2", 96),
        "vit_b_32": ("c5.2", 64),
    }
    path, channels = places[name]
    shape = (1000, 2, channels) if name == "vit_b_32" else (4000, channels, 1, 1)
    state = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(2)).abs()
    found = [backbone.stages.get_submodule(path) for backbone in (deep, plain)]
    return found[0], found[1], state.expand(shape)


@pytest.mark.parametrize("name", NAMES)
def test_a_block_is_skipped_at_its_rate_and_scaled_otherwise(name: str) -> None:
    """Kept, a branch is divided by the share of being kept; skipped, it is 0, and the shortcut is what is left."""
    deep, plain, state = residual_branch(name, rate=0.4)
    torch.manual_seed(3)
    with torch.no_grad():
        result, identity = deep(state), state[:1]
        own = plain(identity) - identity
    (rate, *_) = rates(deep)
    if name == "vit_b_32":
        assert len({round(row.sum().item(), 2) for row in result}) == 4, "each of the two branches, skipped or not"
        skipped = (result == identity).flatten(1).all(1).double().mean()
        assert skipped == pytest.approx(rate**2, abs=0.04)
        return
    skipped = torch.isclose(result, identity, rtol=0, atol=1e-6).flatten(1).all(1)
    assert skipped.double().mean() == pytest.approx(rate, abs=0.03)
    if name.startswith("mobilenet"):  # no activation after the sum: the branch can be read off
        kept = result[~skipped][:1] - identity
        torch.testing.assert_close(kept * (1 - rate), own, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close((result - identity).mean(0, keepdim=True), own, rtol=0.1, atol=1e-4)
    else:
        positive = (own + identity > 0) & (own / (1 - rate) + identity > 0)
        kept = (result[~skipped][:1] - identity)[positive]
        torch.testing.assert_close(kept * (1 - rate), own[positive], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "vit_b_32"])
def test_a_copy_goes_its_own_way(name: str) -> None:
    backbone = frozen_norms(build(name, stochastic_depth=0.8))
    other = copy.deepcopy(backbone)
    assert torch.equal(run(backbone, images()), run(other, images()))
    plain = run(build(name).eval(), images())
    other.eval()
    assert torch.equal(run(other, images()), plain)
    assert not torch.equal(run(backbone, images()), plain)
    for layer in other.modules():
        if isinstance(layer, StochasticDepth):
            layer.p = 0.0
    assert not torch.equal(run(backbone, images()), run(other.train(), images()))
    assert max(rates(backbone)) == 0.8


def test_it_acts_where_the_norms_are_in_eval_mode_and_learns_where_a_block_is_kept() -> None:
    backbone = frozen_norms(build("resnet18", stochastic_depth=0.9))
    torch.manual_seed(0)
    backbone(images())["c5"].square().sum().backward()
    gradients = [parameter.grad for parameter in backbone.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert not torch.equal(run(backbone, images(), 1), run(backbone, images(), 2))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_dilated_network_has_it_too(name: str) -> None:
    backbone = build(name, output_stride=8, stochastic_depth=0.5)
    assert max(rates(backbone)) == 0.5
    plain = build(name, output_stride=8)
    assert torch.equal(run(backbone.eval(), images()), run(plain.eval(), images()))
