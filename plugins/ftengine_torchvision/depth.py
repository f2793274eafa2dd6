"""Stochastic depth for networks that torchvision builds without it.

Huang et al., "Deep Networks with Stochastic Depth", 2016: in training the residual branch of a block is left out with a
probability, for each image by itself, and what is kept is divided by the probability of being kept. In eval mode
nothing changes. What is added has no parameters, so that names and published weights stay valid.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual as InvertedResidualV2
from torchvision.models.mobilenetv3 import InvertedResidual as InvertedResidualV3
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vision_transformer import EncoderBlock
from torchvision.ops import StochasticDepth

NAME = "stochastic_depth"


def add_stochastic_depth(model: nn.Module, rate: float) -> None:
    """Give each residual block of `model`, in place, a rate that grows linearly from 0 at the first to `rate`.

    `model` is a ResNet, RegNet, MobileNet or ViT of torchvision. In MobileNets a block that changes the size or the
    channels has no shortcut and is not counted. Attention and MLP of a transformer's block are skipped independently,
    with one rate. Rate 0 changes nothing at all.
    """
    if rate == 0:
        return
    blocks = [module for module in model.modules() if _is_residual(module)]
    for i, block in enumerate(blocks):
        _add(block, StochasticDepth(rate * i / (len(blocks) - 1), mode="row"))


def _is_residual(module: nn.Module) -> bool:
    if isinstance(module, InvertedResidualV2 | InvertedResidualV3):
        return module.use_res_connect
    return isinstance(module, BasicBlock | Bottleneck | ResBottleneckBlock | EncoderBlock)


def _add(block: Any, layer: StochasticDepth) -> None:
    """Let the residual branch of `block` end with `layer`."""
    match block:
        case BasicBlock() | Bottleneck():
            # The branch is no module of its own. The layer is the block's child, and not its norm's, so that it stays
            # in training mode where the norms are frozen in eval mode.
            block.add_module(NAME, layer)
            last = block.bn2 if isinstance(block, BasicBlock) else block.bn3
            last.register_forward_hook(_Then(layer))
        case ResBottleneckBlock():
            block.f.add_module(NAME, layer)
        case InvertedResidualV2():
            block.conv.add_module(NAME, layer)
        case InvertedResidualV3():
            block.block.add_module(NAME, layer)
        case EncoderBlock():
            block.dropout = nn.Sequential(block.dropout, layer)
            block.mlp.add_module(NAME, StochasticDepth(layer.p, layer.mode))


class _Then:
    """A forward hook that applies `layer` to a module's output; a copy of the network has a copy with its own layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        result: Tensor = self.layer(output)
        return result
