"""The built-in backbones pass the conformance kit: by default a small one of each family, one in whole runs."""

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
# The smallest of their families have 129 and 87 million parameters: by default they are built once.
LARGE = {"vgg11", "vit_b_32"}
BUILT_ONCE = {"levels_as_declared", "channels_and_strides", "least_size", "stages_compose", "eval_features"}


class TestTorchvision(PluginConformance):
    plugin = "torchvision"
    configs = {"inception_v3": {"image": {"size": 75}}}  # noqa: RUF012

    def marks(self, subject, check):
        name = subject.component.name
        whole_run = check.name.startswith("run_")
        once_more = name in LARGE and check.kinds == ("backbone",) and check.name not in BUILT_ONCE
        return (pytest.mark.slow,) if name not in SMALL or whole_run or once_more else ()


def test_one_of_every_family_is_checked_by_default():
    assert sorted(FAMILY[name] for name in SMALL) == sorted(set(FAMILY.values()))


class TestTimmConvolutions(PluginConformance):
    plugin = "timm"
    config = {"backbone": {"model": "test_resnet"}}  # noqa: RUF012

    def marks(self, subject, check):
        return (pytest.mark.slow,) if check.name.startswith("run_") else ()


class TestTimmTransformer(PluginConformance):
    plugin = "timm"
    config = {"backbone": {"model": "test_vit"}}  # noqa: RUF012


@pytest.mark.slow
class TestTimm(PluginConformance):
    plugin = "timm"


@pytest.mark.slow
class TestTimmWithoutStages(PluginConformance):
    """A network that cannot be cut, for images of one size."""

    plugin = "timm"
    config = {"backbone": {"model": "levit_128s"}, "image": {"size": 224}}  # noqa: RUF012
    left_out = {  # noqa: RUF012
        f"timm: {check}": "timm builds it for images of 224 pixels only"
        for check in ("channels_and_strides", "least_size")
    }
