"""Defects of torch, mended: convolutions of narrow maps and of volumes in bf16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mend_strided(model: nn.Module) -> None:
    """Widen, in place, what strided convolutions of `model` see where it is narrower than their stride.

    There torch (oneDNN, found with 2.15) returns a weight gradient in bf16 that was never written: at times NaN. A
    ResNet sees such maps in images of 16 pixels. Zeros to the right change no number of what comes out.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride[1] > 1 and module.padding_mode == "zeros":
            module.register_forward_pre_hook(_widen)


def _widen(conv: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    assert isinstance(conv, nn.Conv2d)
    (images,) = inputs
    width, stride = images.shape[-1], conv.stride[1]
    if width >= stride or not torch.is_grad_enabled():
        return None
    padding = 0 if isinstance(conv.padding, str) else conv.padding[1]
    spare = 2 * padding - conv.dilation[1] * (conv.kernel_size[1] - 1) - 1
    if (width + spare) // stride != (stride + spare) // stride:  # more columns would come out
        return None
    wide: Tensor = F.pad(images, (0, stride - width))
    return (wide,)


def mend_volumes(model: nn.Module) -> None:
    """Compute the 3D convolutions of `model`, in place, in single precision.

    In bf16 torch (oneDNN, found with 2.15) returns weight gradients of theirs that were never written, at times NaN or
    1e35, for a kernel of 3 on maps of 2 frames among others; and it has been seen to damage memory.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module._conv_forward = partial(_in_single, module._conv_forward)  # type: ignore[method-assign]


def _in_single(forward: Callable[..., Tensor], clips: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return forward(clips.float(), weight, bias)
