"""Checks of adapters: what they leave as it is, what they train, and that they can be merged."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ftengine.build import make, make_backbone
from ftengine.errors import name_list
from ftengine.identical import tensor_difference
from ftengine.probe import PROBE_SIZE
from ftengine.protocols import Adapter, AdapterContext, Backbone
from ftengine.testing.checks import Nonconformity, check
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import Subject

ROUNDING = 1e-4
"""How far features may be apart where the same sums are added up in another order, relative to the level's largest."""

MOVED = 0.1
"""The deviation of what is added to an adapter's parameters, to be clearly another one than a new one."""


@dataclass
class Adapted:
    """A backbone of the small run, with random weights and in eval mode, and the subject's adapter applied to it.

    `images`: a batch to try it with; `before`: its features before the adapter was applied; `original`: a copy of it
    as it was then.
    """

    backbone: Backbone
    original: Backbone
    adapter: Adapter
    images: Tensor
    before: dict[str, Tensor]

    @classmethod
    def of(cls, subject: Subject, seed: int = 0) -> Adapted:
        """`seed`: of torch's global generator, for all that is random in it."""
        plan = subject.plan
        with global_seeds(seed):
            backbone = make_backbone(plan).eval()
            shape = backbone.input_shape(plan.config.image.size or (PROBE_SIZE, PROBE_SIZE), frames=plan.frames)
            images = torch.randn(2, *shape[1:])
            before = features(backbone, images)
            original = copy.deepcopy(backbone)
            adapter = make(subject.part, AdapterContext(torch.zeros_like(images[:1])), Adapter)  # type: ignore[type-abstract]
            adapter.apply(backbone)
        return cls(backbone.eval(), original, adapter, images, before)

    @property
    def new(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that train."""
        named = self.backbone.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    @torch.no_grad()
    def train(self) -> dict[str, Tensor]:
        """Move the new parameters, as training would; the features that come of it. Raises Nonconformity where none."""
        generator = torch.Generator().manual_seed(0)
        for parameter in self.new.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=MOVED)
        after = features(self.backbone, self.images)
        if not apart(self.before, after):
            raise Nonconformity("other features with other values of the new parameters", "the same features")
        return after


@torch.no_grad()
def features(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    return {level: feature.clone() for level, feature in backbone(images).items()}


def apart(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> str | None:
    """The first level of which two features are apart by more than rounding, and by how much; None where none is."""
    for level, feature in first.items():
        gap = float((feature - second[level]).abs().max())
        scale = float(feature.abs().max())
        if not gap <= ROUNDING * scale:
            return f"{level} apart by up to {gap:.3g}, where its largest value is {scale:.3g}"
    return None


@check("adapter")
def adapter_starts_from_the_backbone(subject: Subject) -> None:
    """Applied, it does not change what the backbone gives."""
    found = Adapted.of(subject)
    difference = apart(found.before, features(found.backbone, found.images))
    if difference:
        raise Nonconformity("the features of the backbone before it was applied", difference)


@check("adapter")
def adapter_trains_its_own(subject: Subject) -> None:
    """It trains new parameters, fewer than the backbone has, and none of the backbone's own; gradients reach them."""
    found = Adapted.of(subject)
    own = sum(parameter.numel() for parameter in found.original.parameters())
    kept = sum(parameter.numel() for parameter in found.backbone.parameters() if not parameter.requires_grad)
    new = sum(parameter.numel() for parameter in found.new.values())
    if kept < own:
        raise Nonconformity(
            f"that all {own:,} numbers of the backbone's own are there and do not train",
            f"{kept:,} that do not; {name_list(found.new, 3)} train",
        )
    if not 0 < new < own:
        raise Nonconformity(f"new parameters of fewer than the backbone's {own:,} numbers", f"{new:,}")
    inside = set(map(id, found.backbone.stages.parameters()))
    outside = [name for name, parameter in found.new.items() if id(parameter) not in inside]
    if outside:
        raise Nonconformity("that all parameters are in the backbone's stages", f"outside: {name_list(outside, 3)}")
    found.train()
    total = sum(feature.square().mean() for feature in found.backbone(found.images).values())
    gradients = torch.autograd.grad(cast(Tensor, total), list(found.new.values()), allow_unused=True)
    unreached = [name for name, one in zip(found.new, gradients, strict=True) if one is None]
    if unreached:
        raise Nonconformity("a gradient at every new parameter", f"none at {name_list(unreached, 3)}")


@check("adapter")
def adapter_merges(subject: Subject) -> None:
    """Merged, modules and names of the backbone are those before it was applied, and it gives what it gave adapted."""
    found = Adapted.of(subject)
    wanted = found.train()
    found.adapter.merge(found.backbone)
    for what, names in (("modules", _modules), ("parameters and buffers", _shapes)):
        first, second = names(found.original), names(found.backbone)
        other = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        if other:
            told = "; ".join(f"{name}: {second.get(name, 'missing')}, not {first.get(name)}" for name in other[:2])
            raise Nonconformity(f"the {what} of before", f"{len(other)} others: {told}")
    difference = apart(wanted, features(found.backbone, found.images))
    if difference:
        raise Nonconformity("the features of the adapted backbone", difference)


def _modules(backbone: Backbone) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in backbone.named_modules()}


def _shapes(backbone: Backbone) -> dict[str, str]:
    return {name: str(list(tensor.shape)) for name, tensor in backbone.state_dict().items()}


@check("adapter")
def adapter_round_trip(subject: Subject) -> None:
    """The state of an adapted backbone, loaded into another that is adapted anew, gives the same features."""
    found, other = Adapted.of(subject), Adapted.of(subject, seed=1)
    wanted = found.train()
    missing, unexpected = other.backbone.load_state_dict(found.backbone.state_dict(), strict=False)
    if missing or unexpected:
        raise Nonconformity(
            "the same names in two adapted backbones",
            f"{name_list(missing, 3)} only in the second, {name_list(unexpected, 3)} only in the first",
        )
    for level, feature in features(other.backbone, found.images).items():
        difference = tensor_difference(wanted[level], feature)
        if difference:
            raise Nonconformity(f"the same features at {level}, bit for bit", difference)
