"""A network tried with one image, before it is trained."""

from __future__ import annotations

import torch
from torch import nn

from ftengine.errors import FtengineError
from ftengine.protocols import Backbone

PROBE_SIZE = 256
"""Height and width of the image that a network is tried with, where images have no size of their own."""


@torch.no_grad()
def probe(backbone: Backbone, shape: tuple[int, ...], name: str) -> list[nn.Module]:
    """Run one black image of `shape`, [1, 3, …], through: a size the network cannot take is known before training.

    Returns the BatchNorm layers that got one value a channel: in train mode they need more than one image.
    """
    single: list[nn.Module] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            single.append(module)

    norms = [module for module in backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    backbone.eval()
    try:
        backbone(torch.zeros(shape))
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        size = f"{shape[-2]}x{shape[-1]} pixels"
        raise FtengineError(f"image.size: {name} cannot take images of {size}: {cause}") from error
    finally:
        for hook in hooks:
            hook.remove()
    backbone.train()
    return single
