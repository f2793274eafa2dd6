"""Convolutions in bf16 on a CPU have a gradient whatever the width of what they see."""

import copy

import pytest
import torch
from torch import nn

from ftengine.narrow import mend_strided, mend_volumes


def gradient(conv, images, *, bf16):
    """Of the mean square of the output; NaN lies about in freed memory."""
    for dtype in (torch.float32, torch.bfloat16):
        junk = [torch.full((conv.weight.numel(),), torch.nan, dtype=dtype) for _ in range(3)]
        del junk
    conv.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = conv(images)
    output.float().square().mean().backward()
    return output.detach().float(), conv.weight.grad


@pytest.mark.parametrize("size", [(1, 1), (4, 1), (2, 2), (3, 5)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 5, "stride": 2, "padding": 2},
        {"kernel_size": 3, "stride": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 8},
        {"kernel_size": 1, "stride": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"]
)
def test_the_gradient_is_that_of_single_precision(options, size, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, bias=False, **options).to(memory_format=memory_format)
    images = torch.randn(4, 8, *size).to(memory_format=memory_format)
    expected, exact = gradient(conv, images, bf16=False)
    mend_strided(conv)
    for _ in range(3):
        output, found = gradient(conv, images, bf16=True)
        torch.testing.assert_close(output, expected, rtol=0.05, atol=0.02)
        assert (found - exact).norm() < 0.03 * exact.norm()


def test_what_comes_out_is_never_of_another_size():
    """Here a column more that goes in would be one more that comes out."""
    conv = nn.Conv2d(1, 1, 1, stride=3, padding=(0, 2), bias=False)
    images = torch.randn(1, 1, 1, 2)
    shape = conv(images).shape
    mend_strided(conv)
    assert conv(images).shape == shape


@pytest.mark.parametrize("size", [(2, 4, 4), (4, 1, 2), (8, 5, 5)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_volumes_are_computed_in_single_precision(size, stride):
    torch.manual_seed(0)
    conv = nn.Conv3d(64, 8, 3, stride, 1)
    clips = torch.randn(2, 64, *size)
    expected, exact = gradient(conv, clips, bf16=False)
    mended = copy.deepcopy(conv)
    mend_volumes(mended)
    for module in (mended, copy.deepcopy(mended)):
        output, found = gradient(module, clips, bf16=True)
        assert torch.equal(output, expected)
        assert torch.equal(found, exact)
