"""From a torchvision model and its parts to a backbone: what every family shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from ftengine.errors import FtengineError, WeightsError, unknown
from ftengine.protocols import Backbone, BackboneContext
from ftengine_torchvision.catalogue import default_weights
from ftengine_torchvision.dilation import dilate

Stages = dict[str, nn.Module]


def published_weights(name: str, weights: str | None) -> WeightsEnum:
    """The member `weights` of the enum of the builder `name`, or its default one for None.

    Raises WeightsError, with the nearest name, where there is no such member.
    """
    enum = models.get_model_weights(name)
    weights = weights or default_weights(name)
    if weights not in enum.__members__:
        raise WeightsError(unknown(f"weights of {name}", weights, enum.__members__))
    return enum[weights]


def assemble(
    name: str,
    model: nn.Module,
    stages: Stages,
    context: BackboneContext,
    *,
    kind: type[Backbone] = Backbone,
    channels: Mapping[str, int] | None = None,
    strides: Mapping[str, int] | None = None,
    output_stride: int = 32,
    **arguments: Any,
) -> Backbone:
    """A backbone of `stages`, which hold modules of `model`, up to the last level that `context` needs.

    Without `channels` each level has those that its last convolution or linear layer returns; without `strides`,
    2^i. A parameter or buffer is known by identity: its name in `model` is its name in the published file, and names
    of `model` that no stage uses are discarded. Mean and standard deviation are those of the named weights, or the
    default ones'.

    Raises FtengineError for a level that there is not.
    """
    channels = channels or widths(stages)
    strides = strides or {level: 0 if level == "pooled" else 2 ** int(level[1:]) for level in stages}
    names = {id(tensor): key for key, tensor in model.state_dict(keep_vars=True).items()}
    for level in context.levels or ():
        if level not in stages:
            raise FtengineError(unknown(f"level of {name}", level, stages))
    if context.levels is not None:
        last = max(list(stages).index(level) for level in context.levels)
        stages = {level: stage for i, (level, stage) in enumerate(stages.items()) if i <= last}
    strides = dilate(stages, strides, output_stride)
    ours = nn.ModuleDict(stages).state_dict(prefix="stages.", keep_vars=True)
    used = {key: names[id(tensor)] for key, tensor in ours.items()}
    transforms = published_weights(name, context.weights).transforms()
    arguments = {"mean": transforms.mean, "std": transforms.std, **arguments}
    return kind(
        stages,
        {level: channels[level] for level in stages},
        strides,
        url=None if context.weights is None else published_weights(name, context.weights).url,
        published=used,
        discarded=tuple(key for key in names.values() if key not in set(used.values())),
        **arguments,
    )


def widths(stages: Stages) -> dict[str, int]:
    """Channels after each stage, if these are the outputs of the last convolution or linear layer so far."""
    result = {}
    channels = 3
    for level, stage in stages.items():
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            elif isinstance(layer, nn.Linear):
                channels = layer.out_features
        result[level] = channels
    return result


def by_stride(layers: Iterable[nn.Module]) -> Stages:
    """`layers`, run in order, as stages ``c1``, ``c2`` …: a new one begins with each layer that halves the map."""
    groups: list[list[nn.Module]] = []
    for layer in layers:
        if any(isinstance(part, nn.Conv2d) and part.stride == (2, 2) for part in layer.modules()):
            groups.append([])
        groups[-1].append(layer)
    return {f"c{i}": nn.Sequential(*group) for i, group in enumerate(groups, start=1)}


def by_pool(layers: Iterable[nn.Module]) -> Stages:
    """`layers`, run in order, as stages ``c1``, ``c2`` …, each of which ends with a max pooling."""
    groups: list[list[nn.Module]] = [[]]
    for layer in layers:
        groups[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
    return {f"c{i}": nn.Sequential(*group) for i, group in enumerate(groups[:-1], start=1)}
