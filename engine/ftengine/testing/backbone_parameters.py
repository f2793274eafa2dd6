"""Checks of backbones, second half: what trains of them, what is saved, and the published weights."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftengine.audit import digest
from ftengine.build import make
from ftengine.errors import WeightsError, name_list
from ftengine.freeze import Freezer
from ftengine.model import Model
from ftengine.protocols import Backbone, BackboneContext, FreezePolicy, Progress
from ftengine.testing.backbones import ALL, batch, build, built, declared, features_of, in_order, must_equal
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.randomness import FewNumbers, global_seeds
from ftengine.testing.subject import Subject


@check("backbone")
def state_in_stages(subject: Subject) -> None:
    """All parameters and saved buffers are in its stages, where they are loaded, trained and frozen."""
    backbone = built(subject)
    inside = set(map(id, backbone.stages.state_dict(keep_vars=True).values()))
    outside = [name for name, tensor in backbone.state_dict(keep_vars=True).items() if id(tensor) not in inside]
    if outside:
        raise Nonconformity("all parameters and buffers in `stages`", f"outside are {name_list(outside)}")


@check("backbone")
def same_seed_same_start(subject: Subject) -> None:
    """Built twice from the same seed of torch, it begins with the same parameters."""
    with global_seeds(1):  # of Python and NumPy, which a run does not seed
        torch.default_generator.manual_seed(0)
        again = make(subject.part, ALL, Backbone).state_dict()
    first = build(subject).state_dict()
    others = [name for name in first if name not in again or not torch.equal(first[name], again[name])]
    if others:
        raise Nonconformity("the same parameters from the same seed of torch", f"others in {name_list(others)}")


@check("backbone")
def backbone_state_dict(subject: Subject) -> None:
    """A newly built one that loads its state dict gives the very same features."""
    source, target = copy.deepcopy(built(subject)), build(subject, 1)
    inputs = batch(subject)
    with torch.no_grad():
        _losses(source.train(), inputs)  # so that statistics are not what they began as
    source.eval()
    ours, theirs = source.state_dict(), target.state_dict()
    different = ours.keys() ^ theirs.keys()
    if different:
        raise Nonconformity("the same names in every state dict", f"only in one: {name_list(different)}")
    target.load_state_dict(ours)
    expected = "the very same features from a new one that has loaded the state dict"
    must_equal(expected, features_of(target, inputs), features_of(source, inputs))


@check("backbone")
def gradients_arrive(subject: Subject) -> None:
    """A finite gradient arrives at every parameter that trains, from all levels together."""
    backbone = copy.deepcopy(built(subject))
    training = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    if not training:
        raise NotApplicable("it has no parameters that train")
    _must_reach(training, _backward(backbone.train(), batch(subject)))


@check("backbone")
def frozen_stages_rest(subject: Subject) -> None:
    """When its first stages are frozen, nothing in them changes or gets a gradient, and the others still train."""
    backbone = copy.deepcopy(built(subject))
    stages = [name for name, stage in backbone.stages.items() if any(p.requires_grad for p in stage.parameters())]
    if len(stages) < 2:
        raise NotApplicable(f"all its parameters are in {stages[0]}" if stages else "it has no parameters that train")
    first = stages[: len(stages) // 2]
    expected = f"no gradient and no change in {in_order(first)} when they are frozen"
    held_by = {id(parameter) for name in first for parameter in backbone.stages[name].parameters()}
    named = dict(backbone.named_parameters())
    training = {name for name, own in named.items() if own.requires_grad and id(own) not in held_by}
    model = Model(backbone, {}, {}, backbone.mean, backbone.std)
    freezer = Freezer(model, _Frozen(first))
    freezer.apply(Progress(0, 1))
    before = {name: digest(tensor) for name, tensor in freezer.held().items()}
    model.train()
    arrived = _backward(backbone, batch(subject))
    reached = [name for name in arrived if id(named[name]) in held_by]
    if reached:
        raise Nonconformity(expected, f"a gradient at {name_list(reached)}")
    now = model.state_dict()
    moved = [name.removeprefix("backbone.") for name, own in before.items() if digest(now[name]) != own]
    if moved:
        raise Nonconformity(expected, f"that {name_list(moved)} changed in training mode")
    _must_reach(training, arrived)


class _Frozen(FreezePolicy):
    """These stages, always."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = set(names)

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return self.names


def _losses(backbone: Backbone, inputs: Tensor) -> Tensor:
    """A number that every level is a part of."""
    with global_seeds(0):
        return torch.stack([feature.float().square().mean() for feature in backbone(inputs).values()]).sum()


def _backward(backbone: Backbone, inputs: Tensor) -> dict[str, bool]:
    """The parameters that a gradient arrives at, and whether it is finite.

    Each gradient is dropped once it has been looked at: all of them are as large as the network.
    """
    arrived: dict[str, bool] = {}

    def look(name: str, parameter: Tensor) -> None:
        if parameter.grad is not None:
            arrived[name] = bool(parameter.grad.isfinite().all())
            parameter.grad = None

    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(functools.partial(look, name))  # type: ignore[no-untyped-call]
    total = _losses(backbone, inputs)
    if total.requires_grad:  # else nothing is reached
        total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in backbone.named_parameters():
        look(name, parameter)  # of one that forward itself has unfrozen
    return arrived


def _must_reach(training: set[str], arrived: Mapping[str, bool]) -> None:
    expected = "a finite gradient at every parameter that trains, from all levels together"
    lacking = training - arrived.keys()
    if lacking:
        raise Nonconformity(expected, f"none at {name_list(lacking)}")
    wrong = [name for name in training if not arrived[name]]
    if wrong:
        raise Nonconformity(expected, f"NaN or infinity at {name_list(wrong)}")


@check("backbone")
def published_weights(subject: Subject) -> None:
    """It knows where each of its weights are, by which names, and for which mean and deviation of the pixels."""
    spec = declared(subject)
    _must_describe(built(subject), "")
    for name in dict.fromkeys([*spec.weights, *filter(None, [spec.default_weights])]):
        try:
            with FewNumbers():
                made = build(subject, context=BackboneContext(weights=name))
        except WeightsError:
            if spec.open_weights:  # only its library knows whether this network has any
                continue
            raise
        which = f" with the weights {name}"
        if made.url is None:
            raise Nonconformity(f"a url{which}", "none")
        _must_describe(made, which)


def _must_describe(backbone: Backbone, which: str) -> None:
    for key, least in (("mean", 0.0), ("std", math.ulp(0.0))):
        values = getattr(backbone, key)
        if len(values) != 3 or not all(least <= value <= 1 for value in values):
            raise Nonconformity(f"three numbers of pixels in 0..1 as {key}{which}", f"{tuple(values)}")
    own = backbone.state_dict(keep_vars=True)
    strange = [name for name in backbone.published if name not in own]
    if strange:
        raise Nonconformity(f"names of its state dict in `published`{which}", f"{name_list(strange)}, which are none")
    tensors: dict[str, set[int]] = {}
    for name, theirs in backbone.published.items():
        tensors.setdefault(theirs, set()).add(id(own[name]))
    twice = [theirs for theirs, ids in tensors.items() if len(ids) > 1]
    if twice:
        raise Nonconformity(f"a published name for one tensor each{which}", f"several tensors for {name_list(twice)}")
    both = {*tensors, *(own.keys() - backbone.published.keys())} & set(backbone.discarded)
    if both:
        raise Nonconformity(f"names that are not used in `discarded`{which}", f"{name_list(both)}, which are used")
