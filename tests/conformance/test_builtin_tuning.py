"""The built-in freeze policies, regularizers, adapters and strategies conform."""

from typing import ClassVar

import pytest

from ftengine.testing import PluginConformance

WHOLE_RUNS = {"freeze auto", "adapter lora"}
"""The components with which whole runs are made by default; with the others they are slow."""


class OnATinyNetwork(PluginConformance):
    """A ResNet of half a million parameters: what is checked is not the backbone."""

    config: ClassVar = {
        "backbone": {"name": "timm", "model": "test_resnet", "weights": "none"},
        "image": {"size": 32},
        "train": {"pictures": 0},
    }

    def marks(self, subject, check):
        return [pytest.mark.slow] if check.name.startswith("run_") and subject.name not in WHOLE_RUNS else []


class TestFreeze(OnATinyNetwork):
    plugin = "freeze"


class TestRegularizers(OnATinyNetwork):
    plugin = "regularizers"


class TestPeft(OnATinyNetwork):
    plugin = "peft"


class TestStrategies(OnATinyNetwork):
    plugin = "strategies"
