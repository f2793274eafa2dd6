"""Sliding windows: they cover the image, overlap enough, and what is merged is what the whole gives."""

from itertools import pairwise

import pytest
import torch
from tiny import TinyBackbone, make_batch, make_model
from torch.nn import functional

from ftengine.protocols import Frame, Head
from ftengine.windows import Sliding


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (100, 300), (40, 200), (500, 70)])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.75])
def test_windows_cover_the_image_and_overlap(size, overlap):
    sliding = Sliding((64, 64), overlap)
    seen = torch.zeros(size)
    windows = sliding.windows(size)
    for window in windows:
        assert (window.height, window.width) == (min(64, size[0]), min(64, size[1]))
        part = seen[window.top : window.top + window.height, window.left : window.left + window.width]
        assert part.shape == (window.height, window.width)
        part += 1
    assert (seen > 0).all()
    for axis in ("top", "left"):
        starts = sorted({getattr(window, axis) for window in windows})
        assert all(b - a <= 64 * (1 - overlap) + 1 for a, b in pairwise(starts))
    assert sliding.needed(size) is (size != (64, 64) and max(size) > 64)


class Pixels(Head):
    """The mean of a pixel's channels: what one window says of a pixel is what every other says."""

    def forward(self, features, batch):
        return {"logits": functional.avg_pool2d(batch.images, 1).mean(1, keepdim=True)}

    def predict(self, output, batch):
        return []

    def merge(self, outputs, windows, size):
        merged = torch.full((outputs[0]["logits"].shape[0], 1, *size), torch.nan)
        for output, window in zip(outputs, windows, strict=True):
            rows = slice(window.top, window.top + window.height)
            merged[..., rows, window.left : window.left + window.width] = output["logits"]
        return {"logits": merged}


def test_the_model_sees_large_images_through_windows_in_eval_mode_only():
    model = make_model(backbone=TinyBackbone())
    model.heads["a"] = Pixels()
    calls = []
    model.backbone.register_forward_hook(lambda module, inputs, output: calls.append(tuple(inputs[0].shape[2:])))
    batch = make_batch(2)
    batch.images = torch.randint(0, 256, (2, 40, 56, 3), dtype=torch.uint8)
    batch.frames = [Frame.whole(40, 56)] * 2
    model.sliding = Sliding((16, 32), 0.25)
    model.eval()
    with torch.no_grad():
        windowed = model(batch, ["a"]).results["a"]
        assert set(calls) == {(16, 32)}
        assert len(calls) == 6
        assert windowed.batch.images.shape == (2, 3, 40, 56)
        model.train()
        whole = model(batch, ["a"]).results["a"]
    assert calls[6:] == [(40, 56)]
    assert torch.equal(windowed.output["logits"], whole.output["logits"])
