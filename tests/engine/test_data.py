"""Samples to batches: held-out splits, order, encoding, augmentation, workers, and samples that fail."""

import itertools
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from tiny import TinyData

from ftengine import seeding
from ftengine.config import ImageConfig
from ftengine.data import Failure, Item, Split
from ftengine.errors import DataError
from ftengine.holdout import Subset, fingerprint, hold_out
from ftengine.loading import LoaderSettings, batches
from ftengine.order import TrainOrder, in_order
from ftengine.protocols import IGNORE, Frame
from ftengine.protocols.task import stack


def encode(target):
    return {"label": np.int64(target["label"])}


def make_split(data, size=8, augmentation=None, encode=encode, collate=stack, **image):
    config = ImageConfig.model_validate({"size": size, "fit": "crop", **image})
    return Split(data, {"a": encode}, {"a": collate}, config, frozenset({"label"}), augmentation, 3, "s")


# --- held-out splits ---------------------------------------------------------------------------------------------


def ids(data):
    return [data.sample_id(i) for i in range(len(data))]


def test_held_out_samples_and_the_rest_are_the_whole_each_in_order():
    data = TinyData(50)
    rest, held = hold_out(data, 0.3, 0, None, "val")
    assert (len(rest), len(held)) == (35, 15)
    assert sorted(ids(rest) + ids(held)) == sorted(ids(data))
    for part in (rest, held):
        numbers = [int(name.removeprefix("tiny-")) for name in ids(part)]
        assert numbers == sorted(numbers)
        assert part.names == data.names
        assert part.target(0) == {"label": numbers[0] % 2}
        assert part.image(0)[0, 0, 0] == numbers[0]
        assert part[0].id == part.sample_id(0)


def test_the_split_depends_on_seed_and_name_alone():
    data = TinyData(50)
    held = {
        key: tuple(hold_out(data, 0.3, seed, None, what)[1].indices)
        for key, seed, what in [("a", 0, "val"), ("b", 0, "val"), ("c", 1, "val"), ("d", 0, "test")]
    }
    assert held["a"] == held["b"]
    assert len({held["a"], held["c"], held["d"]}) == 3


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.37, 0.5, 0.8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_strata_keep_their_proportions_to_within_one_sample(fraction, seed):
    strata = np.repeat([0, 1, 2, 3], [60, 25, 10, 5])
    np.random.default_rng(seed).shuffle(strata)
    _, held = hold_out(TinyData(100), fraction, seed, strata, "val")
    for stratum, count in zip(*np.unique(strata, return_counts=True), strict=True):
        assert abs((strata[held.indices] == stratum).sum() - fraction * count) <= 1


def test_a_stratum_with_one_sample_stays_in_the_rest():
    strata = np.array([0] * 20 + [7])
    for seed in range(20):
        rest, _ = hold_out(TinyData(21), 0.4, seed, strata, "val")
        assert 20 in rest.indices


def test_which_of_a_stratum_are_held_out_depends_on_the_seed():
    strata = np.arange(40) % 2
    chosen = {tuple(hold_out(TinyData(40), 0.25, seed, strata, "val")[1].indices) for seed in range(5)}
    assert len(chosen) == 5


@pytest.mark.parametrize(("length", "fraction"), [(1, 0.5), (3, 0.1), (3, 0.9), (0, 0.5)])
def test_an_empty_side_is_refused(length, fraction):
    with pytest.raises(DataError, match=f"val_fraction {fraction} of {length} samples leaves no sample on one side"):
        hold_out(TinyData(length), fraction, 0, None, "val")


class Swapped(TinyData):
    def target(self, index):
        return {"label": 1 - index % 2}


def test_fingerprints_tell_order_ids_and_targets_apart():
    data = TinyData(4)
    assert fingerprint(data) == fingerprint(TinyData(4))
    others = [TinyData(5), Subset(data, np.array([0, 1, 3, 2])), Subset(data, np.array([0, 1, 2])), Swapped(4)]
    assert len({fingerprint(data), *map(fingerprint, others)}) == 5


# --- order -------------------------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_in_whole_batches():
    order = list(TrainOrder(11, 3, 0, "s", 0, 6))
    assert [len(batch) for batch in order] == [3] * 6
    for epoch in (0, 1):
        samples = [key for batch in order[3 * epoch : 3 * epoch + 3] for key in batch]
        assert {e for e, _ in samples} == {epoch}
        assert [i for _, i in samples] == seeding.order(0, epoch, 11, "s")[:9].tolist()


def test_started_anywhere_it_is_the_rest_of_the_whole():
    full = list(TrainOrder(10, 3, 5, "s", 0, 14))
    for start in range(15):
        assert list(TrainOrder(10, 3, 5, "s", start, 14)) == full[start:]


@pytest.mark.parametrize(("length", "size"), [(10, 3), (9, 3), (2, 5), (0, 3)])
def test_evaluation_takes_every_sample_once_in_order(length, size):
    order = in_order(length, size)
    assert list(itertools.chain(*order)) == [(0, i) for i in range(length)]
    assert all(len(batch) == size for batch in order[:-1])


# --- samples and batches -----------------------------------------------------------------------------------------


def test_a_sample_is_fitted_and_encoded():
    item = make_split(TinyData(4, (20, 10)))[(0, 3)]
    assert isinstance(item, Item)
    assert (item.image.shape, item.image.dtype, item.id) == ((8, 8, 3), np.uint8, "tiny-3")
    assert item.frame.original == (20, 10)
    assert item.targets["a"]["label"] == 1


def test_an_augmentation_s_seed_is_that_of_the_sample_in_its_epoch():
    seen = []

    def note(scene, seed):
        seen.append((seed, scene.size))
        return scene

    split = make_split(TinyData(4), augmentation=note)
    for epoch, index in [(0, 1), (0, 2), (1, 1), (0, 1)]:
        split[(epoch, index)]
    assert [seed for seed, _ in seen] == [
        seeding.derive(3, "augment", "s", *key) for key in [(0, 1), (0, 2), (1, 1), (0, 1)]
    ]
    assert len({seed for seed, _ in seen}) == 3


@pytest.mark.parametrize(("fit_at", "shape"), [("start", (8, 8, 3)), ("end", (20, 10, 3))])
def test_augmentations_get_the_image_before_or_after_it_is_fitted(fit_at, shape):
    seen = []

    def note(scene, seed):
        seen.append(scene.image.shape)
        return replace(scene, image=scene.image[:5])

    item = make_split(TinyData(4, (20, 10)), augmentation=note, fit_at=fit_at)[(0, 0)]
    assert seen == [shape]
    assert item.image.shape == (8, 8, 3)


def test_collating_stacks_images_and_targets():
    split = make_split(TinyData(4, (9, 7)))
    batch = split.collate([split[(0, i)] for i in (2, 1, 3)])
    assert (batch.images.shape, batch.images.dtype) == ((3, 8, 8, 3), torch.uint8)
    assert batch.targets["a"]["label"].tolist() == [0, 1, 1]
    assert batch.targets["a"]["label"].dtype == torch.int64
    assert batch.ids == ["tiny-2", "tiny-1", "tiny-3"]
    assert [frame.original for frame in batch.frames] == [(9, 7)] * 3


def test_one_failure_stands_for_the_whole_batch():
    failure = Failure("broken")
    split = make_split(TinyData(2))
    assert split.collate([split[(0, 0)], failure]) is failure


def boxes(target):
    return {"boxes": np.full((target["label"] * 2, 4), 7, np.float32)}


def as_lists(encoded):
    return {name: [torch.from_numpy(sample[name]) for sample in encoded] for name in encoded[0]}


@pytest.mark.parametrize("workers", [0, 2])
def test_targets_whose_shapes_differ_are_lists(workers):
    split = make_split(TinyData(6), encode=boxes, collate=as_lists)
    (batch,) = batches(split, in_order(6, 6), LoaderSettings(workers))
    shapes = [[tuple(tensor.shape) for tensor in part.targets["a"]["boxes"]] for part in (batch, *batch.split(3))]
    assert shapes == [[(0, 4), (2, 4)] * 3, *[[(0, 4), (2, 4)]] * 3]
    moved = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in (moved.images, *moved.targets["a"]["boxes"])} == {"meta"}


# --- loading -----------------------------------------------------------------------------------------------------


class Breaks(TinyData):
    """Sample 5 raises `error`."""

    def __init__(self, error):
        super().__init__(12)
        self.error = error

    def image(self, index):
        if index == 5:
            raise self.error
        return super().image(index)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("photo-5.jpg cannot be read"), "photo-5.jpg cannot be read"),
        (ValueError("no such value"), "sample tiny-5: ValueError: no such value"),
    ],
    ids=["DataError", "ValueError"],
)
def test_a_sample_that_fails_is_named(error, message, workers):
    loaded = batches(make_split(Breaks(error)), in_order(12, 3), LoaderSettings(workers))
    assert next(loaded).ids == ["tiny-0", "tiny-1", "tiny-2"]
    with pytest.raises(DataError) as raised:
        list(loaded)
    assert str(raised.value) == message


def too_small(scene, seed):
    raise DataError("augment[0]: RandomCrop failed")


def test_a_sample_that_cannot_be_augmented_is_named():
    loaded = batches(make_split(TinyData(12), augmentation=too_small), in_order(12, 3), LoaderSettings())
    with pytest.raises(DataError, match=r"^sample tiny-0: augment\[0\]: RandomCrop failed$"):
        next(loaded)


def noise(scene, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, scene.image.shape, dtype=np.uint8)
    return replace(scene, image=pixels)


def test_batches_are_the_same_with_any_number_of_workers():
    def load(workers, start):
        order = TrainOrder(10, 2, 0, "s", start, 8)
        return [
            (b.images, b.ids)
            for b in batches(make_split(TinyData(), augmentation=noise), order, LoaderSettings(workers))
        ]

    alone = load(0, 0)
    assert len(alone) == 8
    for workers, start in [(2, 0), (1, 3), (0, 6)]:
        for (images, names), (expected, expected_names) in zip(load(workers, start), alone[start:], strict=True):
            assert names == expected_names
            assert torch.equal(images, expected)


def test_loading_leaves_the_run_s_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(batches(make_split(TinyData()), in_order(10, 5), LoaderSettings(0)))
    assert torch.rand(1) == expected


# --- places in the image -----------------------------------------------------------------------------------------


class Spatial(TinyData):
    """Images of 10 × 20, 12 × 18 … with one box over the left half, which the mask shows as well."""

    names = MappingProxyType({"boxes": ("half",), "mask": ("rest", "half")})

    def size(self, index):
        return 10 + 2 * index, 20 - 2 * index

    def image(self, index):
        return np.zeros((*self.size(index), 3), np.uint8)

    def target(self, index):
        height, width = self.size(index)
        boxes = np.array([[0, 0, width / 2, height], [0, 0, 2, 2]], np.float64)
        return {"boxes": boxes, "box_labels": np.array([0, 0]), "box_crowd": np.array([False, True])}

    def mask(self, index):
        mask = np.zeros(self.size(index), np.uint8)
        mask[:, : self.size(index)[1] // 2] = 1
        return mask


def places(target):
    return {name: np.asarray(target[name]) for name in ("boxes", "box_crowd", "mask")}


def make_spatial(augmentation=None, training=False, data=None, **image):
    config = ImageConfig.model_validate({"fit": "shorter", "size": 20, "max_size": 40, **image})
    fields = frozenset({"boxes", "mask"})
    data = data or Spatial(3)
    return Split(data, {"a": places}, {"a": as_lists}, config, fields, augmentation, training=training)


def test_images_of_different_shapes_are_padded_to_32_with_ignored_pixels():
    split = make_spatial()
    batch = split.collate([split[(0, i)] for i in range(3)])
    assert batch.images.shape == (3, 32, 64, 3)
    assert [frame.size for frame in batch.frames] == [(20, 40), (20, 30), (20, 23)]
    for mask, frame in zip(batch.targets["a"]["mask"], batch.frames, strict=True):
        assert mask.shape == (32, 64)
        height, width = frame.size
        assert (mask[:height, :width] != IGNORE).all()
        assert (mask[height:] == IGNORE).all()
        assert (mask[:, width:] == IGNORE).all()
    assert batch.targets["a"]["boxes"][0].tolist() == [[0, 0, 20, 20], [0, 0, 4, 4]]


def test_metrics_get_boxes_and_masks_of_the_originals_and_training_does_not_make_them():
    split = make_spatial()
    batch = split.collate([split[(0, i)] for i in range(3)])
    truths = batch.truths["a"]
    assert [tuple(mask.shape) for mask in truths["mask"]] == [(10, 20), (12, 18), (14, 16)]
    assert truths["boxes"][2].tolist() == [[0, 0, 8, 14], [0, 0, 2, 2]]
    assert truths["boxes"][0].dtype == torch.float64
    training = make_spatial(training=True)
    batch = training.collate([training[(0, i)] for i in range(3)])
    assert batch.truths["a"] is batch.targets["a"]


def drop_second(scene, seed):
    return replace(scene, image=scene.image[:8], mask=scene.mask[:8], boxes=scene.boxes[1:], kept=np.array([1]))


@pytest.mark.parametrize(("fit_at", "size"), [("start", (8, 40)), ("end", (16, 40))])
def test_what_stands_beside_a_box_goes_with_it(fit_at, size):
    item = make_spatial(drop_second, training=True, fit_at=fit_at)[(0, 0)]
    assert item.targets["a"]["box_crowd"].tolist() == [True]
    assert len(item.targets["a"]["boxes"]) == 1
    assert item.frame == Frame.whole(*size)
    assert item.targets["a"]["mask"].shape == item.image.shape[:2] == size


class WrongMask(Spatial):
    def mask(self, index):
        return np.zeros((3, 3), np.uint8)


def test_a_mask_of_another_size_is_named():
    assert make_spatial(data=WrongMask(1))[(0, 0)] == Failure(
        "sample tiny-0: its mask is of (3, 3), its image of (10, 20)"
    )


def test_double_precision_reaches_the_device_as_single():
    split = make_spatial()
    batch = split.collate([split[(0, 0)]])
    assert batch.targets["a"]["boxes"][0].dtype == torch.float64
    assert batch.to(torch.device("cpu")).targets["a"]["boxes"][0].dtype == torch.float32


def test_fingerprint_of_a_file_name_that_is_not_utf8():
    data, other = TinyData(1), TinyData(1)
    data.sample_id = lambda index: "x\udcff.jpg"
    other.sample_id = lambda index: "x\udcfe.jpg"
    assert fingerprint(data) != fingerprint(other)
