"""From a traced timm model to named stages."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ftengine.errors import FtengineError, name_list
from ftengine_timm.tracing import Call, Trace, fake_images, trace, units


@dataclass
class Cut:
    """`stages` by level, the last one ``pooled``, with the channels and stride of each.

    `formats` says what a stage hands on: ``NCHW``, ``NHWC``, ``NLC`` (tokens, the first `prefix` of which are no
    patches), or ``pair`` (what the head reads, and the level).
    """

    stages: dict[str, nn.Module]
    channels: dict[str, int]
    strides: dict[str, int]
    formats: dict[str, str]
    prefix: int


class Trunk(nn.Module):
    """Images to what the model's ``forward_features`` returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward_features(images)


class WholeTrunk(Trunk):
    """Images to a pair: what ``forward_features`` returns, and the last feature map, [B, C, h, w]."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        final, maps = self.model.forward_intermediates(images, indices=1, output_fmt="NCHW")
        return final, maps[-1]


class Descriptor(nn.Module):
    """What the trunk returned (or a pair that begins with it) to what the classifier reads, [B, C, 1, 1]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        final = state[0] if isinstance(state, tuple) else state
        return self.model.forward_head(final, pre_logits=True).flatten(1)[:, :, None, None]


def cut(model: nn.Module, size: tuple[int, int], dilated: bool = False) -> Cut:
    """`model` as stages. It is traced on images of `size` (height, width); its parameters are not copied.

    `dilated`: strides were taken out of its last stages, so that levels share one.

    Raises FtengineError for a model without features, or without a head to tell the descriptor from the classifier.
    """
    missing = [name for name in ("feature_info", "forward_features", "forward_head") if not hasattr(model, name)]
    if missing or not model.feature_info:
        raise FtengineError(f"backbone timm: {type(model).__name__} offers no features ({name_list(missing)})")
    found = trace(model, size)
    levels = _levels(list(model.feature_info), found, dilated)
    prefix = getattr(model, "num_prefix_tokens", 0)
    nhwc = str(getattr(model, "output_fmt", "")).endswith("NHWC")
    one_grid = len({level.stride for level in levels}) == 1
    formats = {level.name: _format(level, found, size, prefix, nhwc, one_grid) for level in levels}
    start = found.chain
    modules: list[nn.Module] = []
    if not found.pure:
        modules.append(
            Trunk(_shell(model, drop={call.name for call in found.calls[start:]} | _head_only(model, found)))
        )
    if not levels or None in formats.values() or not (found.pure or _returns(modules[0], size, found.calls, start)):
        return _whole(model, found)
    result = Cut({}, {}, {}, formats, prefix)
    parts = units(model)
    for level in levels:
        modules += [parts[call.name] for call in found.calls[start : level.end + 1]]
        result.stages[level.name] = nn.Sequential(*modules)
        result.channels[level.name], result.strides[level.name] = level.channels, level.stride
        start, modules = level.end + 1, []
    rest = [parts[call.name] for call in found.calls[start:]]
    return _pooled(result, nn.Sequential(*rest, _descriptor(model, found)), found)


@dataclass(frozen=True)
class Level:
    """A level that ends with the call `end` of the trace."""

    name: str
    end: int
    channels: int
    stride: int


def _levels(info: list[dict[str, Any]], found: Trace, dilated: bool) -> list[Level]:
    """timm's features as levels: by stride, or in a model with one grid the embedding and four groups of blocks.

    Only those that end in the chain, or where it begins.
    """
    names = [call.name for call in found.calls]

    def calls_of(module: str) -> list[int]:
        return [i for i, name in enumerate(names) if name == module or name.startswith(module + ".")]

    info = [entry for entry in info if entry["reduction"] > 1 and calls_of(entry["module"])]
    ends = [max(calls_of(entry["module"])) for entry in info]
    if len(info) > 4 and len({entry["reduction"] for entry in info}) == 1:
        first = min(calls_of(info[0]["module"]))
        ends = [first - 1, *(ends[round(len(info) * i / 4) - 1] for i in range(1, 5))]
        result = [Level(f"c{i + 1}", end, info[0]["num_chs"], info[0]["reduction"]) for i, end in enumerate(ends)]
        # The embedding is all that may come before the chain.
        return result if found.chain <= first else []
    by_name = {}
    number = 0
    for entry, end in zip(info, ends, strict=True):
        # Of several features of one stride the last counts; but dilated stages repeat a stride and keep their number.
        number = max(number + dilated, round(math.log2(entry["reduction"])))
        by_name[f"c{number}"] = Level(f"c{number}", end, entry["num_chs"], entry["reduction"])
    return [level for level in by_name.values() if level.end >= found.chain]


def _format(level: Level, found: Trace, size: tuple[int, int], prefix: int, nhwc: bool, one_grid: bool) -> str | None:
    """How the tensor after `level` is laid out, or None where that is not known."""
    tensor = found.calls[level.end].result if level.end >= found.chain else found.calls[found.chain].source
    if not isinstance(tensor, Tensor):
        return None
    shape = tuple(tensor.shape)
    if len(shape) == 4 and level.channels in (shape[1], shape[3]):
        return "NHWC" if shape[1] != level.channels or (nhwc and shape[3] == level.channels) else "NCHW"
    # Tokens are in the order of their places where there is one grid; Hiera, which has several, reorders them.
    patches = (size[0] // level.stride) * (size[1] // level.stride)
    return "NLC" if one_grid and shape == (1, prefix + patches, level.channels) else None


def _whole(model: nn.Module, found: Trace) -> Cut:
    """Two stages: everything up to the last level, and the descriptor."""
    if not hasattr(model, "forward_intermediates"):
        raise FtengineError(
            f"backbone timm: {type(model).__name__} is no chain of modules and has no forward_intermediates, so that "
            "it cannot be cut into stages"
        )
    info = list(model.feature_info)
    level = "c5"
    if len({entry["reduction"] for entry in info}) > 1:
        level = f"c{round(math.log2(info[-1]['reduction']))}"
    trunk = WholeTrunk(_shell(model, drop=_head_only(model, found)))
    result = Cut({level: trunk}, {level: info[-1]["num_chs"]}, {level: info[-1]["reduction"]}, {level: "pair"}, 0)
    return _pooled(result, _descriptor(model, found), found)


def _pooled(result: Cut, stage: nn.Module, found: Trace) -> Cut:
    result.stages["pooled"] = stage
    result.channels["pooled"] = math.prod(found.descriptor.shape)
    result.strides["pooled"] = 0
    return result


def _descriptor(model: nn.Module, found: Trace) -> Descriptor:
    """The head without the classifier, and without the parameters of the model itself."""
    for name in _classifier(model):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    shell = _shell(model, drop=set(units(model)) - found.head)
    shell._parameters, shell._buffers = {}, {}
    return Descriptor(shell)


def _classifier(model: nn.Module) -> tuple[str, ...]:
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _head_only(model: nn.Module, found: Trace) -> set[str]:
    """Units that only the head runs, and those that are the classifier or have it inside (LeViT's, with a norm)."""
    classifying = {
        unit for unit in units(model) if any(f"{name}.".startswith(f"{unit}.") for name in _classifier(model))
    }
    return (found.head | classifying) - {call.name for call in found.calls}


def _returns(trunk: nn.Module, size: tuple[int, int], calls: list[Call], start: int) -> bool:
    """Whether `trunk` returns something like what the call `start` took: some models do more between their blocks."""
    with fake_images(trunk, size) as images:
        shape = trunk(images).shape
    return start < len(calls) and shape == calls[start].source.shape


def _shell(model: nn.Module, drop: set[str]) -> nn.Module:
    """A copy of `model` that shares its tensors but has lost the units in `drop`, so that it hands on what it gets."""
    result = copy.copy(model)
    result._modules = {}
    result._parameters, result._buffers = dict(model._parameters), dict(model._buffers)
    for name, child in model._modules.items():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child):
            result._modules[name] = copy.copy(child)
            result._modules[name]._modules = {
                key: part for key, part in child._modules.items() if f"{name}.{key}" not in drop
            }
        else:
            result._modules[name] = child if child is None or name not in drop else nn.Identity()
    return result
