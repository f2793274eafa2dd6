"""What the tests share: embeddings of classes, as predictions and targets come in batches."""

import pytest
import torch
from torch.nn import functional as F


@pytest.fixture
def draw():
    """``draw(count, classes, seed)``: embeddings [N, 8] near a direction of their class, and labels [N]."""

    def make(count=60, classes=5, seed=0, noise=1.0):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, classes, (count,), generator=generator)
        centres = torch.randn(classes, 8, generator=generator)
        embeddings = centres[labels] + noise * torch.randn(count, 8, generator=generator)
        return F.normalize(embeddings), labels

    return make
