"""The built-in backbones pass the conformance kit: a small one of each family by default, all of them when slow."""

import pytest

from ftengine.testing import PluginConformance
from ftengine_torchvision.catalogue import FAMILY

SMALL = {
    "resnet18",
    "vgg11",
    "inception_v3",
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "vit_b_32",
    "swin_t",
}


class TestTorchvision(PluginConformance):
    plugin = "torchvision"
    configs = {"inception_v3": {"image": {"size": 75}}}  # noqa: RUF012

    def marks(self, subject, check):
        return () if subject.component.name in SMALL else (pytest.mark.slow,)


def test_one_of_every_family_is_checked_by_default():
    assert sorted(FAMILY[name] for name in SMALL) == sorted(set(FAMILY.values()))


class TestTimm(PluginConformance):
    plugin = "timm"


class TestTimmTransformer(PluginConformance):
    plugin = "timm"
    config = {"backbone": {"model": "test_vit"}}  # noqa: RUF012


@pytest.mark.slow
class TestTimmWithoutStages(PluginConformance):
    """A network that cannot be cut, for images of one size."""

    plugin = "timm"
    config = {"backbone": {"model": "levit_128s"}, "image": {"size": 224}}  # noqa: RUF012
    left_out = {  # noqa: RUF012
        f"timm: {check}": "timm builds it for images of 224 pixels only"
        for check in ("channels_and_strides", "least_size")
    }
