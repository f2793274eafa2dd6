"""Torchvision's video networks taken apart into stages. Each builder's name is a factory here.

They are built without weights: the engine loads them, by the names in `published`. None of them shrinks time and space
alike; `strides` are those of space.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torchvision import models

from ftengine.plugin import Options
from ftengine.protocols import Backbone, BackboneContext


def r3d_18(options: Options, context: BackboneContext) -> Backbone:
    """[B, 64 … 512, T', H / s, W / s], rounded up; s is 2, 2, 4, 8, 16, T' is T, T, T / 2, T / 4, T / 8, rounded up."""
    return _resnet("r3d_18", context)


def mc3_18(options: Options, context: BackboneContext) -> Backbone:
    """As `r3d_18`, but T' is T at every level."""
    return _resnet("mc3_18", context)


def r2plus1d_18(options: Options, context: BackboneContext) -> Backbone:
    """As `r3d_18`."""
    return _resnet("r2plus1d_18", context)


def s3d(options: Options, context: BackboneContext) -> Backbone:
    """[B, 64, 192, 480, 832, 1024, T', H / 2^i, W / 2^i], rounded up but for the last level, which is rounded down.

    T' is T / 2, T / 2, T / 2, T / 4, T / 8, with the same rounding. Five frames would do, but with fewer than eight
    torch 2.15 leaves gradients of the first convolution in time (kernel 7, stride 2, padding 3) unwritten on a CPU, and
    with fewer than six it writes beyond its memory.
    """
    model = models.get_model("s3d", weights=None)
    parts = list(model.features)
    cuts = {"c1": (0, 1), "c2": (1, 4), "c3": (4, 7), "c4": (7, 13), "c5": (13, 16)}
    stages = {level: nn.Sequential(*parts[start:end]) for level, (start, end) in cuts.items()}
    channels = {"c1": 64, "c2": 192, "c3": 480, "c4": 832, "c5": 1024}
    strides = {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32}
    return _backbone("s3d", model, stages, channels, strides, context, min_size=17, clip=8)


def _resnet(name: str, context: BackboneContext) -> Backbone:
    model = models.get_model(name, weights=None)
    stages = {"c1": model.stem, "c2": model.layer1, "c3": model.layer2, "c4": model.layer3, "c5": model.layer4}
    channels = {"c1": 64, "c2": 64, "c3": 128, "c4": 256, "c5": 512}
    strides = {"c1": 2, "c2": 2, "c3": 4, "c4": 8, "c5": 16}
    return _backbone(name, model, stages, channels, strides, context, min_size=1, clip=1)


def _backbone(
    name: str,
    model: nn.Module,
    stages: Mapping[str, nn.Module],
    channels: Mapping[str, int],
    strides: Mapping[str, int],
    context: BackboneContext,
    *,
    min_size: int,
    clip: int,
) -> Backbone:
    """A backbone of `stages`, modules of `model`, up to the last level that `context` needs.

    A tensor's name in `model` is its name in the published file.
    """
    if context.levels is not None:
        last = max(list(stages).index(level) for level in context.levels)
        stages = dict(list(stages.items())[: last + 1])
    names = {id(tensor): key for key, tensor in model.state_dict(keep_vars=True).items()}
    ours = nn.ModuleDict(stages).state_dict(prefix="stages.", keep_vars=True)
    published = {key: names[id(tensor)] for key, tensor in ours.items()}
    weights = models.get_model_weights(name)[context.weights or "KINETICS400_V1"]
    transforms = weights.transforms()
    return Backbone(
        stages,
        {level: channels[level] for level in stages},
        {level: strides[level] for level in stages},
        mean=transforms.mean,
        std=transforms.std,
        url=None if context.weights is None else weights.url,
        published=published,
        discarded=tuple(key for key in names.values() if key not in set(published.values())),
        min_size=min_size,
        clip=clip,
    )
