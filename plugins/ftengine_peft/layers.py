"""Which layers of a backbone can be adapted, found out by running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ftengine.protocols import Backbone


@dataclass(frozen=True)
class Layer:
    """The weight called `parameter` of `module`. `runs`: the module is called, and does what its type says.

    Where it does not, something else reads the weight: attention in torch and torchvision does, without ever calling
    the layers that it is stored in; and some convolutions standardise their weight first.
    """

    module: nn.Module
    parameter: str
    runs: bool


@dataclass
class Found:
    """By name, ``<stage>.<name within it>``: `layers` that can be adapted, and why the `others` cannot."""

    layers: dict[str, Layer] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)


def find(backbone: Backbone, images: Tensor) -> Found:
    """The linear and convolutional layers of `backbone`, and the projections of attention, ``<attention>.in_proj``.

    `images`, float [1, 3, H, W] or [1, 3, T, H, W], are run through it twice, in eval mode: without gradients, to see
    what is called as it is in evaluation (where torch may take another way), and with them, to see which weights
    matter.
    """
    found = Found()
    users = Counter(id(weight) for module in backbone.modules() for weight in module._parameters.values())
    candidates: dict[str, tuple[nn.Module, str]] = {}
    for name, module, parameter in _weights(backbone.stages):
        weight = module._parameters.get(parameter)
        if weight is None or parametrize.is_parametrized(module):
            found.others[name] = "its weight is computed from others"
        elif not weight.requires_grad:
            found.others[name] = "its weight never trains"
        elif users[id(weight)] > 1:
            found.others[name] = "it shares its weight with another layer"
        elif getattr(module, "groups", 1) > 1:
            found.others[name] = "it is a convolution in groups, which has no low-rank update that can be merged"
        else:
            candidates[name] = (module, parameter)
    mode = backbone.training
    backbone.eval()
    with torch.no_grad(), _calls([module for module, _ in candidates.values()]) as called:
        backbone(images)
    weights = [module._parameters[parameter] for module, parameter in candidates.values()]
    with torch.enable_grad():
        total = sum(feature.sum() for feature in backbone(images).values())
        gradients = torch.autograd.grad(total, weights, allow_unused=True) if weights else ()
    backbone.train(mode)
    for (name, (module, parameter)), gradient in zip(candidates.items(), gradients, strict=True):
        if gradient is None:
            found.others[name] = "the backbone does not use it"
        else:
            found.layers[name] = Layer(module, parameter, id(module) in called and _is_plain(module))
    return found


def _weights(stages: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and parameter of each weight."""
    for name, module in stages.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            yield name, module, "weight"
        elif isinstance(module, nn.MultiheadAttention):
            for parameter, weight in module._parameters.items():
                if parameter.endswith("proj_weight") and weight is not None:
                    yield f"{name}.{parameter.removesuffix('_weight')}", module, parameter


def _is_plain(module: nn.Module) -> bool:
    """Whether peft's layer for `module` does what it does: no subclass's own way, dilation or padding."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        return type(module) in (nn.Conv2d, nn.Conv3d) and set(module.dilation) == {1} and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


@contextmanager
def _calls(modules: list[nn.Module]) -> Iterator[set[int]]:
    """The ids of those of `modules` whose forward is called meanwhile.

    Not by hooks, which would keep torch from the way that it takes without them.
    """
    called: set[int] = set()

    def recording(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            called.add(id(module))
            return forward(*args, **kwargs)

        return record

    for module in modules:
        module.__dict__["forward"] = recording(module, module.forward)
    try:
        yield called
    finally:
        for module in modules:
            del module.__dict__["forward"]
