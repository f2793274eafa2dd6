"""A finer last feature map: strides taken out of a convolutional network, its filters dilated in their place."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def dilate(stages: Mapping[str, nn.Module], strides: Mapping[str, int], output_stride: int) -> dict[str, int]:
    """Change `stages`, in place, so that no level is coarser than `output_stride`; returns each level's new stride.

    The filters read the same input pixels as before ("algorithme à trous", arXiv:1412.7062): where the network is
    a chain of convolutions, the undilated map is every k-th pixel of the new one. Each stage may halve the map at
    most once. Levels of stride 0 (descriptors) stay as they are.
    """
    rate = 1
    result = {}
    for level, stage in stages.items():
        result[level] = min(strides[level], output_stride)
        if strides[level] > output_stride:
            _dilate(stage, rate, rate)
            rate *= 2
    return result


def _dilate(module: nn.Module, before: int, rate: int) -> int:
    """Dilate what is in `module`: by `before` up to the layer that halved the map, twice that after it.

    `rate` is the dilation for the next layer; the one for the layer after this module is returned.
    """
    for name, child in module.named_children():
        halves = isinstance(child, (nn.Conv2d, nn.MaxPool2d)) and child.stride in (2, (2, 2))
        if isinstance(child, nn.Conv2d):
            setattr(module, name, _convolution(child, before if halves else rate))
        elif halves:
            # The windows of a 2x2 pool reach `before` pixels past the right and lower edge once they are dense.
            # What is pooled here comes out of a ReLU, so that zeros never win.
            pool = nn.MaxPool2d(2, stride=1, dilation=before)
            setattr(module, name, nn.Sequential(nn.ZeroPad2d((0, before, 0, before)), pool))
        else:
            rate = _dilate(child, before, rate)
        # A shortcut beside the main path halves too, so this may be said twice in a block.
        rate = 2 * before if halves else rate
    return rate


def _convolution(layer: nn.Conv2d, rate: int) -> nn.Module:
    """`layer` with stride 1 and dilation `rate`, and its weights."""
    layer.stride = (1, 1)
    if layer.kernel_size == (1, 1):
        return layer
    layer.dilation = (rate, rate)
    if layer.kernel_size[0] % 2:
        layer.padding = tuple(rate * (size // 2) for size in layer.kernel_size)
        return layer
    # An even filter (ConvNeXt's 2x2) reads to the right and below only.
    reach = rate * (layer.kernel_size[0] - 1)
    return nn.Sequential(nn.ZeroPad2d((0, reach, 0, reach)), layer)
