"""The components together, from images and masks of several sizes to metrics, rows and pictures, without a backbone."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ftengine.config import ImageConfig
from ftengine.data import Split
from ftengine.protocols import Batch, Dataset, HeadContext, LossContext, MetricContext, TaskContext
from ftengine_segmentation import heads, losses, metrics, options
from ftengine_segmentation.head_options import FcnOptions
from ftengine_segmentation.task import Segmentation

NAMES = ("grass", "roof", "water")
COLOURS = {"grass": (40, 200, 40), "roof": (200, 40, 40), "water": (40, 40, 200)}

LOSSES = {
    "cross_entropy": (losses.CrossEntropy, options.CrossEntropyOptions(class_weights="balanced")),
    "focal": (losses.Focal, options.FocalOptions()),
    "dice": (losses.dice, options.OverlapOptions()),
    "jaccard": (losses.jaccard, options.OverlapOptions()),
    "tversky": (losses.tversky, options.TverskyOptions(alpha=0.3, beta=0.7, gamma=0.75)),
    "lovasz": (losses.Lovasz, options.RegionOptions()),
}


class Fields(Dataset):
    """Images of stripes in noisy colours, of three sizes; the stripes' edges are void."""

    def __init__(self, names, count, seed):
        self.names = {"mask": tuple(names)}
        self.ids = {"mask": tuple(10 * NAMES.index(name) + 5 for name in names)}
        self.images, self.masks = [], []
        rng = np.random.default_rng(seed)
        for index in range(count):
            height, width = [(48, 64), (64, 48), (56, 40)][index % 3]
            mask = rng.permutation(3).repeat(-(-width // 3))[None, :width].repeat(height, 0).astype(np.uint8)
            colours = np.array([COLOURS[name] for name in names])[mask] + rng.normal(0, 10, (height, width, 3))
            edge = np.zeros_like(mask, bool)
            edge[:, 1:] = mask[:, 1:] != mask[:, :-1]
            self.images.append(colours.clip(0, 255).astype(np.uint8))
            self.masks.append(np.where(edge | np.roll(edge, -1, 1), 255, mask).astype(np.uint8))

    def __len__(self):
        return len(self.images)

    def target(self, index):
        return {}

    def image(self, index):
        return self.images[index]

    def mask(self, index):
        return self.masks[index]

    def sample_id(self, index):
        return str(index)


def fitted(data):
    task = Segmentation(options.TaskOptions(count_pixels=True), TaskContext(field="mask"))
    task.fit(data)
    return task


def batch_of(task, data, place, training=False):
    """All of `data` as one batch, padded by the engine, its features, and the truths of the original sizes."""
    encoders, collators = {"a": task.encoder(data, place)}, {"a": task.collate}
    # The images of 56×40 pixels are enlarged to 67×48, the others stay.
    image = ImageConfig(size=48, fit="shorter", max_size=80)
    split = Split(data, encoders, collators, image, frozenset({"mask"}), training=training)
    batch = split.collate([split[0, i] for i in range(len(data))])
    images = batch.images.permute(0, 3, 1, 2) / 255
    small = F.avg_pool2d(images, 4)
    features = {"c4": small, "c5": torch.cat([small] * 6, 1)}
    return Batch(images, batch.targets["a"], batch.ids, batch.frames), features, batch.truths["a"]


SIMILAR = ("focal", "jaccard", "tversky")
"""Their gradients are like another one's."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SIMILAR)) for name in LOSSES])
def test_classes_of_another_colour_are_learned(name):
    torch.manual_seed(0)
    train = Fields(NAMES, 6, seed=0)
    task = fitted(train)
    head = heads.fcn(FcnOptions(aux=True), HeadContext({"c4": 12, "c5": 18}, {"c4": 4, "c5": 4}, task))
    make, made = LOSSES[name]
    loss = make(made, LossContext(task))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    batch, features, _ = batch_of(task, train, "train", training=True)
    features["c4"] = torch.cat([features["c4"]] * 4, 1)
    assert batch.targets["mask"].shape == (6, 96, 64)
    for _ in range(100):
        optimizer.zero_grad()
        terms = loss(head(features, batch), batch)
        assert list(terms) == [name, f"aux_{name}"]
        sum(terms.values()).backward()
        optimizer.step()

    head.eval()
    loss.eval()
    val = Fields(NAMES[::-1], 6, seed=1)  # which names its classes in another order
    batch, features, truths = batch_of(task, val, "val")
    output = head(features, batch)
    (term,) = loss(output, batch).values()
    assert term < 0.3
    predictions = head.predict(output, batch)
    assert [tuple(p["mask"].shape) for p in predictions] == [image.shape[:2] for image in val.images]
    metric = metrics.mean_iou(options.MetricOptions(), MetricContext(task))
    metric.update(predictions, truths)
    values = metric.compute()
    assert values["mean_iou"] > 0.95
    # As anyone would measure it from the files: what was written beside the masks as they are.
    written = np.concatenate([task.index_map(p).ravel() for p in predictions])
    true = np.concatenate([mask.ravel() for mask in val.masks])
    each = []
    for index, (own, number) in enumerate(zip(val.names["mask"], val.ids["mask"], strict=True)):
        is_true, is_written = true == index, (written == number) & (true != 255)
        each.append((is_true & is_written).sum() / (is_true | is_written).sum())
        assert values[f"iou/{own}"] == each[-1]
    assert values["mean_iou"] == pytest.approx(np.mean(each), rel=1e-15)


def test_padding_is_ignored_and_the_truth_has_none():
    data = Fields(NAMES, 3, seed=0)
    batch, _, truths = batch_of(fitted(data), data, "val")
    for mask, frame in zip(batch.targets["mask"], batch.frames, strict=True):
        height, width = frame.size
        assert set(mask[:height, :width].unique().tolist()) == {0, 1, 2, 255}
        assert (mask[height:] == 255).all()
        assert (mask[:, width:] == 255).all()
    for truth, mask in zip(truths["mask"], data.masks, strict=True):
        np.testing.assert_array_equal(truth, mask)
