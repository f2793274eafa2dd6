"""LoRA: low-rank updates of a backbone's layers (Hu et al. 2022, arXiv:2106.09685).

A layer's weight W, [outputs, inputs], becomes W + (alpha / rank) B A, where only A, [rank, inputs], and B, [outputs,
rank], train. B starts at zero, so that the backbone starts as it was. The inputs of a convolution are its channels
times its kernel's pixels.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Conv2d, Conv3d, Linear, LoraLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ftengine.errors import FtengineError, name_list, nearest
from ftengine.protocols import Adapter, AdapterContext, Backbone
from ftengine_peft.layers import Found, Layer, find
from ftengine_peft.plugin import LoraOptions

NAME = "default"
"""What peft calls an adapter where there is only one."""


def lora(options: LoraOptions, context: AdapterContext) -> Adapter:
    """The adapter ``lora``."""
    return Lora(options, context.images)


class WeightUpdate(nn.Module):
    """The update of a weight that is read by others than its own layer, as a parametrization: float32 in and out."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        self.lora_B = nn.Parameter(weight.new_zeros(len(weight), rank))
        self.scale = scale
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as peft does

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return torch.addmm(weight.flatten(1), self.lora_B, self.lora_A, alpha=self.scale).view_as(weight)


class Lora(Adapter):
    """Layers that are called are wrapped by peft's; a weight that others read is parametrized, without dropout."""

    def __init__(self, options: LoraOptions, images: Tensor) -> None:
        self.options = options
        self.images = images

    def apply(self, backbone: Backbone) -> None:
        """Raises FtengineError for a target that matches nothing, and for a backbone without a layer to adapt."""
        layers = self._chosen(find(backbone, self.images))
        backbone.requires_grad_(False)
        wrapped = {layer.module: self._wrap(layer.module) for layer in layers if layer.runs}
        scale = self.options.alpha / self.options.rank
        for layer in layers:
            if not layer.runs:
                weight = layer.module.get_parameter(layer.parameter)
                update = WeightUpdate(weight, self.options.rank, scale)
                parametrize.register_parametrization(layer.module, layer.parameter, update)
        _replace(backbone, wrapped)
        backbone.train(backbone.training)

    def _chosen(self, found: Found) -> list[Layer]:
        """The layers that the targets name, in the backbone's order."""
        if not found.layers:
            kinds = "; ".join(f"{name}: {reason}" for name, reason in list(found.others.items())[:3])
            raise FtengineError(
                "adapter lora: the backbone has no linear or convolutional layer that can be adapted"
                + (f" ({kinds})" if kinds else "")
                + "; what needs none: freeze bias_only, norm_only, stages, or all, without an adapter"
            )
        for target in self.options.targets:
            if any(fnmatchcase(name, target) for name in found.layers):
                continue
            matched = [f"{name}: {reason}" for name, reason in found.others.items() if fnmatchcase(name, target)]
            if matched:
                raise FtengineError(
                    f"adapter.targets: nothing that {target!r} matches can be adapted ({name_list(matched, 3)})"
                )
            near = nearest(target, found.layers)
            hint = f"did you mean {near!r}?" if near else f"there are: {name_list(found.layers)}"
            raise FtengineError(f"adapter.targets: no linear or convolutional layer is called {target!r}; {hint}")
        return [
            layer
            for name, layer in found.layers.items()
            if any(fnmatchcase(name, target) for target in self.options.targets)
        ]

    def _wrap(self, module: nn.Module) -> nn.Module:
        options = self.options
        config = LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout)  # type: ignore[arg-type]
        kind = {nn.Conv2d: Conv2d, nn.Conv3d: Conv3d}.get(type(module), Linear)
        layer = kind(module, NAME, config, r=options.rank, lora_alpha=options.alpha)
        layer.cast_input_dtype_enabled = False  # autocast decides on types, and would undo it
        return layer

    @torch.no_grad()
    def merge(self, backbone: Backbone) -> None:
        """As the class says; what is merged is whatever LoRA layers `backbone` holds."""
        unwrapped = {}
        for module in list(backbone.modules()):
            if isinstance(module, LoraLayer):
                layer = module.get_base_layer()
                _add(layer.weight, module.lora_B[NAME].weight, module.lora_A[NAME].weight, module.scaling[NAME])
                unwrapped[module] = layer
            elif parametrize.is_parametrized(module):
                updates = [update for found in module.parametrizations.values() for update in found]
                if all(isinstance(update, WeightUpdate) for update in updates):
                    _restore(module)
        _replace(backbone, unwrapped)


def _restore(module: nn.Module) -> None:
    """Merge the updates of a module's weights, and make it what it was before these were parametrized.

    torch's own ``remove_parametrizations`` would break copies of the module, since these share a class made for them.
    """
    weights = {}
    for name, updates in module.parametrizations.items():
        (update,) = updates
        weights[name] = updates.original
        _add(weights[name], update.lora_B, update.lora_A, update.scale)
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, weight in weights.items():
        module.register_parameter(name, weight)


def _add(weight: Tensor, up: Tensor, down: Tensor, scale: float) -> None:
    """Add the update to `weight`, in place: in double precision on the CPU, since a GPU may round products to TF32."""
    product = up.flatten(1).cpu().double() @ down.flatten(1).cpu().double()
    weight.copy_(weight.cpu().double() + scale * product.view_as(weight))


def _replace(backbone: Backbone, others: dict[nn.Module, nn.Module]) -> None:
    """Put each module's replacement in all of its places."""
    for parent in list(backbone.modules()):
        for name, child in parent._modules.items():
            if child in others:
                parent._modules[name] = others[child]
