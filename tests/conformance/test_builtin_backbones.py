"""The built-in backbones pass the conformance kit: by default some small ones, and what all say of themselves."""

import pytest

from ftengine.testing import PluginConformance

SMALL = {"resnet18", "mobilenet_v3_small", "regnet_y_400mf"}


class TestTorchvision(PluginConformance):
    plugin = "torchvision"

    def marks(self, subject, check):
        small = subject.component.name in SMALL and not check.name.startswith("run_")
        by_default = small or check.run.__module__ == "ftengine.testing.components"
        return () if by_default else (pytest.mark.slow,)


class TestTimmConvolutions(PluginConformance):
    plugin = "timm"
    config = {"backbone": {"model": "test_resnet"}}  # noqa: RUF012

    def marks(self, subject, check):
        return (pytest.mark.slow,) if check.name.startswith("run_") else ()


class TestTimmTransformer(PluginConformance):
    plugin = "timm"
    config = {"backbone": {"model": "test_vit"}}  # noqa: RUF012

    def marks(self, subject, check):
        return (pytest.mark.slow,) if check.name in ("run_repeats", "run_resumes") else ()


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
