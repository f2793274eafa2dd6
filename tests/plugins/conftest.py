"""Fixtures for the tests of plugins."""

import pytest
import torch


@pytest.fixture
def narrow_vit(monkeypatch):
    """Torchvision's vision transformers are 64 channels wide, not 768 or more: the smallest has 88 million numbers to
    draw. Depth, patches, names and all that options do stay; as published they are in the slow tests."""
    from torchvision.models import vision_transformer

    build = vision_transformer._vision_transformer

    def narrow(**arguments):
        return build(**{**arguments, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 256})

    monkeypatch.setattr(vision_transformer, "_vision_transformer", narrow)


@pytest.fixture
def without_values():
    """Tensors have shapes and no values, unless another device is asked for: nothing is drawn."""
    with torch.device("meta"):
        yield
