"""Mixup and cutmix: what is in the images is what the labels say."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from tiny import make_batch, make_model

from ftengine import seeding
from ftengine.config import MixConfig
from ftengine.errors import DataError
from ftengine.mixing import Mixing
from ftengine.model import StreamBatch
from ftengine.protocols import Frame

KINDS = {"mixup": {"mixup": 0.4}, "cutmix": {"cutmix": 1.0}, "both": {"mixup": 0.4, "cutmix": 1.0}}


class Soft:
    """Softens ``label`` to `classes` columns; other targets it leaves."""

    def __init__(self, classes):
        self.classes = classes

    def soften(self, targets):
        return {"label": torch.nn.functional.one_hot(targets["label"], self.classes).float()}


def numbered(size, shape=(20, 28), scale=10):
    """`size` images, each of one grey, `scale` times its number; the label is the number."""
    images = torch.arange(size, dtype=torch.uint8)[:, None, None, None] * scale
    targets = {"a": {"label": torch.arange(size), "other": torch.arange(size) * 3}}
    frames = [Frame.whole(*shape)] * size
    return StreamBatch(images.expand(size, *shape, 3).contiguous(), targets, [f"s{i}" for i in range(size)], frames)


def mixed(seed, batch, names=("a",), classes=None, **config):
    mixing = Mixing(MixConfig(**config), {name: Soft(classes or len(batch)) for name in names})
    seeding.seed_step(0, seed)
    return mixing(batch, names)


@pytest.mark.parametrize("size", [2, 5, 6])
def test_cutmix_labels_are_the_shares_of_pixels(size):
    shares = set()
    for seed in range(30):
        result = mixed(seed, numbered(size), cutmix=1.0)
        counted = torch.stack([(result.images[..., 0] == 10 * i).float().mean((1, 2)) for i in range(size)], 1)
        torch.testing.assert_close(result.targets["a"]["label"], counted, rtol=0, atol=1e-6)
        assert (counted.sum(1) - 1).abs().max() < 1e-6, "every pixel is one of an image of the batch"
        shares.add(round(float(counted[0, 0]), 6))
    assert len(shares) > 20
    assert min(shares) < 0.5 < max(shares)


def test_a_box_at_the_edge_is_cut_off_and_the_label_says_so():
    cut = 0
    for seed in range(60):
        result = mixed(seed, numbered(2), cutmix=1.0)
        inside = (result.images[0, ..., 0] == 10).nonzero()
        if not len(inside):
            continue
        top, left = inside.amin(0).tolist()
        bottom, right = (inside.amax(0) + 1).tolist()
        assert len(inside) == (bottom - top) * (right - left), "one box"
        cut += top == 0 or left == 0 or bottom == 20 or right == 28
        assert float(result.targets["a"]["label"][0, 1]) == pytest.approx(len(inside) / (20 * 28))
    assert 10 < cut < 60


@pytest.mark.parametrize("size", [2, 5, 6])
def test_mixup_blends_pixels_as_it_blends_labels(size):
    shares = []
    for seed in range(20):
        result = mixed(seed, numbered(size), mixup=0.4)
        labels = result.targets["a"]["label"]
        pixels = labels @ (10.0 * torch.arange(size))
        torch.testing.assert_close(result.images, pixels[:, None, None, None].expand_as(result.images))
        shares.append(float(labels[0, 0]))
    assert len(set(shares)) > 15
    assert any(0.02 < share < 0.98 for share in shares)


def test_the_share_of_mixup_has_the_asked_distribution():
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1))."""
    for alpha in (0.4, 4.0):
        mixing = Mixing(MixConfig(mixup=alpha), {"a": Soft(2)})
        batch = numbered(2, shape=(1, 1))
        torch.manual_seed(0)
        shares = torch.stack([mixing(batch, ["a"]).targets["a"]["label"][0, 0] for _ in range(2000)])
        assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_types_ranges_and_sums(kind):
    batch = make_batch(5)
    before = copy.deepcopy(batch)
    for seed in range(10):
        result = mixed(seed, batch, classes=2, **KINDS[kind])
        assert (result.images.dtype, result.images.shape) == (torch.float32, batch.images.shape)
        assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 255.001
        labels = result.targets["a"]["label"]
        assert (labels.dtype, labels.shape) == (torch.float32, (5, 2))
        torch.testing.assert_close(labels.sum(1), torch.ones(5))
        assert (result.ids, result.frames) == (batch.ids, batch.frames)
    assert torch.equal(batch.images, before.images), "what it was given stays as it was"
    assert torch.equal(batch.targets["a"]["label"], before.targets["a"]["label"])


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_function_of_the_seed_alone(kind):
    batch = make_batch(6)

    def run(seed, earlier=0):
        mixing = Mixing(MixConfig(p=0.7, **KINDS[kind]), {"a": Soft(2)})
        for _ in range(earlier):
            mixing(batch, ["a"])
        seeding.seed_step(3, seed)
        return mixing(batch, ["a"])

    for seed in range(8):
        first, again = run(seed), run(seed, earlier=3)
        assert torch.equal(first.images, again.images)
        assert torch.equal(first.targets["a"]["label"], again.targets["a"]["label"])
    assert len({run(seed).images[0].float().sum().item() for seed in range(8)}) > 4


def test_with_both_each_is_used_half_of_the_time():
    kinds = []
    for seed in range(200):
        result = mixed(seed, numbered(2, shape=(12, 12), scale=100), mixup=5.0, cutmix=1.0)
        kinds.append(bool(torch.isin(result.images, torch.tensor([0.0, 100.0])).all()))
    assert 70 < sum(kinds) < 130


def test_p_is_the_share_of_batches_that_are_mixed():
    batch = numbered(4)
    results = [mixed(seed, batch, mixup=1.0, p=0.25) for seed in range(200)]
    plain = [result for result in results if result is batch]
    assert 125 < len(plain) < 175
    assert plain[0].images.dtype == torch.uint8
    assert plain[0].targets["a"]["label"].dtype == torch.int64


def test_several_tasks_are_mixed_alike():
    batch = numbered(5)
    batch.targets["b"] = {"label": torch.arange(5) % 3}
    batch.targets["c"] = {"label": torch.arange(5)}
    mixing = Mixing(MixConfig(cutmix=1.0), {"a": Soft(5), "b": Soft(3)})
    for seed in range(5):
        seeding.seed_step(0, seed)
        result = mixing(batch, ["a", "b"])
        own = result.targets["a"]["label"]
        torch.testing.assert_close(result.targets["b"]["label"], own @ torch.eye(3)[torch.arange(5) % 3])
    assert result.targets["c"]["label"] is batch.targets["c"]["label"], "a task that is not named keeps its targets"
    assert result.targets["a"]["other"] is batch.targets["a"]["other"], "what is not softened stays"


def test_one_image_stays_as_it_is():
    batch = numbered(1)
    assert mixed(0, batch, mixup=1.0) is batch


def test_what_fills_the_batch_up_is_no_part_of_an_image():
    batch = numbered(3, shape=(32, 32), scale=50)
    batch.frames = [Frame.whole(20, 28)] * 3
    batch.images[:, 20:] = batch.images[:, :, 28:] = 7
    for seed in range(10):
        result = mixed(seed, batch, cutmix=1.0)
        counted = torch.stack([(result.images[:, :20, :28, 0] == 50 * i).float().mean((1, 2)) for i in range(3)], 1)
        torch.testing.assert_close(result.targets["a"]["label"], counted, rtol=0, atol=1e-6)
        assert result.images.shape == (3, 32, 32, 3)
        assert not result.images[:, 20:].any()
        assert not result.images[:, :, 28:].any()


def test_images_of_unequal_sizes_are_refused():
    batch = numbered(3)
    batch.frames = [*batch.frames[:2], Frame.whole(12, 28)]
    with pytest.raises(
        DataError, match=r"unequal sizes .*\(s1: 20x28, s2: 12x28\); use image.fit crop, stretch or pad"
    ):
        mixed(0, batch, mixup=1.0)


def test_the_model_takes_it_and_normalises_alike():
    model = make_model()
    batch = make_batch(4)
    as_float = StreamBatch(batch.images.float(), batch.targets, batch.ids, batch.frames)
    assert torch.equal(model.normalise(as_float), model.normalise(batch))
    result = mixed(1, batch, classes=2, cutmix=1.0)
    before = result.images.clone()
    model(result, ["a"])
    assert torch.equal(result.images, before), "a pass leaves the batch as it was"
    with_channels_last = make_model()
    with_channels_last.memory_format = torch.channels_last
    with_channels_last(result, ["a"])
    assert torch.equal(result.images, before), "also where no copy is needed to lay it out"


@pytest.mark.parametrize("config", [{}, {"mixup": 0.0}, {"mixup": 1.0, "p": 0.0}, {"cutmix": 1.0, "p": 1.5}])
def test_configs_that_make_no_sense(config):
    with pytest.raises(ValidationError):
        MixConfig(**config)
