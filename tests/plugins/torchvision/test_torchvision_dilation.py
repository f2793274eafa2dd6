"""Dilated stages read the same pixels: the undilated map is every k-th pixel of the dilated one."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from ftengine.protocols import BackboneContext
from ftengine_torchvision import backbones
from ftengine_torchvision.plugin import register_backbones

SPECS = {spec.name: spec for spec in register_backbones()}
# Without squeeze and excitation, whose means over the map see other pixels once there are more of them.
CHAINS = ["resnet18", "mobilenet_v2", "regnet_x_400mf"]
LARGE = ["resnet50", "convnext_tiny", "vgg11_bn"]


def build(name: str, output_stride: int, levels: tuple[str, ...] | None = ("c5",)):
    torch.manual_seed(0)
    options = SPECS[name].options(output_stride=output_stride)
    return getattr(backbones, name)(options, BackboneContext(levels=levels)).eval().double()


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("resnet18", 16),
        *((name, 8) for name in CHAINS),
        *(pytest.param(name, 8, marks=pytest.mark.slow) for name in LARGE),
    ],
)
def test_every_kth_pixel_is_the_undilated_map(name: str, stride: int) -> None:
    plain = build(name, 32)
    images = torch.randn(1, 3, 64, 96, dtype=torch.double)
    dilated = build(name, stride)
    dilated.load_state_dict(dict(zip(dilated.state_dict(), plain.state_dict().values(), strict=True)))
    with torch.inference_mode():
        few, many = plain(images), dilated(images)
    for level in plain.levels:
        assert dilated.strides[level] == min(plain.strides[level], stride)
        assert many[level].shape[2:] == (64 // dilated.strides[level], 96 // dilated.strides[level])
        step = plain.strides[level] // dilated.strides[level]
        torch.testing.assert_close(many[level][:, :, ::step, ::step], few[level], rtol=1e-6, atol=1e-8)


def test_it_is_what_torchvision_does_where_it_can() -> None:
    dilated = build("resnet50", 8)
    model = models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True]).eval().double()
    state = {dilated.published[key]: tensor for key, tensor in dilated.state_dict().items()}
    model.load_state_dict(state, strict=False)
    model.fc = torch.nn.Identity()
    images = torch.randn(1, 3, 64, 96, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(dilated(images)["c5"].mean((2, 3)), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "mobilenet_v3_small", pytest.param("efficientnet_v2_s", marks=pytest.mark.slow)]
)
def test_squeezing_networks_keep_a_finer_map(name: str) -> None:
    dilated = build(name, 8, None)
    assert sorted(dilated.published.values()) == sorted(build(name, 32, None).published.values())
    with torch.inference_mode():
        features = dilated(torch.randn(1, 3, 64, 96, dtype=torch.double))
    assert features["c4"].shape[2:] == features["c5"].shape[2:] == (8, 12)
    assert [dilated.strides[level] for level in ("c1", "c2", "c3", "c4", "c5")] == [2, 4, 8, 8, 8]


@pytest.mark.parametrize("name", ["convnext_tiny"])
def test_min_size_follows_the_stride(name: str) -> None:
    dilated = build(name, 8)
    assert dilated.min_size == 8
    with torch.inference_mode():
        assert dilated(torch.randn(1, 3, 8, 8, dtype=torch.double))["c5"].shape[2:] == (1, 1)
        with pytest.raises(RuntimeError):
            dilated(torch.randn(1, 3, 7, 8, dtype=torch.double))
