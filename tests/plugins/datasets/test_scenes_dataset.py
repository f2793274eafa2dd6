"""The `digits` dataset's scenes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from ftengine.protocols import DatasetContext
from ftengine_datasets.digits import digits
from ftengine_datasets.options import DigitsOptions


def load(limit=None, **scenes):
    return digits(DigitsOptions(scenes=scenes or True, limit=limit), DatasetContext(split="train"))


@pytest.fixture(scope="module")
def few():
    return load(count=30)


def test_the_defaults():
    data = load()
    assert len(data) == 600
    assert data.names == {
        "boxes": tuple("0123456789"),
        "mask": ("background", *"0123456789"),
        "values": ("count",),
        "labels": tuple("0123456789"),
    }
    sample = data[599]
    assert sample.id == "scene-0599"
    assert sample.image.shape == (96, 96, 3)
    assert sample.image.dtype == sample.target["mask"].dtype == np.uint8
    assert data.size(599) == sample.target["mask"].shape == (96, 96)
    assert 1 <= len(sample.target["boxes"]) <= 4


def test_targets_have_the_types_of_their_fields(few):
    target = few.target(0)
    types = {name: array.dtype for name, array in target.items()}
    assert types == {
        "boxes": np.float64,
        "box_labels": np.int64,
        "box_crowd": bool,
        "box_areas": np.float64,
        "values": np.float32,
        "labels": np.float32,
    }
    assert target["values"].tolist() == [len(target["boxes"])]
    assert target["labels"].nonzero()[0].tolist() == sorted(set(target["box_labels"].tolist()))
    assert set(target["labels"].tolist()) == {0, 1}
    assert not target["box_crowd"].any()


def apart(boxes, index):
    """Whether box `index` has no pixel in common with another."""
    others = np.delete(boxes, index, axis=0)
    low, high = np.maximum(boxes[index, :2], others[:, :2]), np.minimum(boxes[index, 2:], others[:, 2:])
    return not ((high - low) > 0).all(1).any()


def test_boxes_and_areas_are_exactly_those_of_the_masks(few):
    checked = 0
    for i in range(len(few)):
        target, mask = few.target(i), few.mask(i)
        boxes = target["boxes"]
        for k, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
            assert 0 <= x1 < x2 <= 96
            assert 0 <= y1 < y2 <= 96
            if apart(boxes, k):
                own = mask[y1:y2, x1:x2] == target["box_labels"][k] + 1
                assert all(edge.any() for edge in (own[0], own[-1], own[:, 0], own[:, -1]))
                assert own.sum() == target["box_areas"][k] == (mask[y1:y2, x1:x2] > 0).sum()
                checked += 1
        outside = mask.copy()
        for x1, y1, x2, y2 in boxes.astype(int):
            outside[y1:y2, x1:x2] = 0
        assert not outside.any()
    assert checked > 50


def test_digits_are_where_the_mask_says(few):
    bright = np.concatenate([few.image(i)[few.mask(i) > 0] for i in range(30)])
    dark = np.concatenate([few.image(i)[few.mask(i) == 0] for i in range(30)])
    assert bright.mean() > 170
    assert dark.mean() < 80


def test_little_is_hidden():
    data = load()
    boxes = [data.target(i)["boxes"] for i in range(200)]
    hidden = sum(not apart(own, k) for own in boxes for k in range(len(own)))
    assert hidden < 0.02 * sum(map(len, boxes))


def test_the_options_are_kept_to():
    data = load(count=40, size=80, digits=[2, 3], digit_size=[20, 30])
    assert len(data) == 40
    assert data.image(0).shape == (80, 80, 3)
    counts = {len(data.target(i)["boxes"]) for i in range(40)}
    assert counts == {2, 3}
    boxes = np.concatenate([data.target(i)["boxes"] for i in range(40)])
    heights = boxes[:, 3] - boxes[:, 1]
    assert heights.min() >= 18
    assert heights.max() <= 32
    assert heights.max() - heights.min() >= 8


@pytest.mark.parametrize("size", [32, 33])
def test_digits_as_large_as_the_scene_fit(size):
    data = load(count=60, size=size, digits=[1, 1], digit_size=[size, size])
    for i in range(60):
        assert data.target(i)["boxes"].max() <= size
        assert data.mask(i).any()


def test_scenes_without_digits():
    data = load(count=3, digits=[0, 0])
    assert data.target(0)["boxes"].shape == (0, 4)
    assert data.target(0)["values"].tolist() == [0]
    assert not data.mask(0).any()


def test_all_digits_occur_and_none_in_two_scenes():
    data = load()
    used = data._dealt[: data._first[-1]]
    assert len(set(used.tolist())) == len(used) == data._first[-1] > 1300
    labels = np.concatenate([data.target(i)["box_labels"] for i in range(100)])
    assert set(labels.tolist()) == set(range(10))


def test_digits_are_dealt_again_when_they_are_used_up():
    assert len(load(count=2000, digits=[3, 3]).target(1999)["boxes"]) == 3


def equal(one, other, index):
    a, b = one[index], other[index]
    same = np.array_equal(a.image, b.image) and np.array_equal(a.target["mask"], b.target["mask"])
    return same and np.array_equal(a.target["boxes"], b.target["boxes"])


def test_scenes_depend_on_seed_and_index_alone(few):
    again = pickle.loads(pickle.dumps(load(count=30)))
    for index in (29, 3, 3, 0):
        assert equal(few, again, index)
    assert equal(few, load(limit=5), 4)
    assert len(load(limit=5)) == 5
    assert not equal(few, load(count=30, seed=1), 3)
    assert not np.array_equal(few.image(0), few.image(1))


def test_single_digits_stay_as_they_are():
    data = digits(DigitsOptions(), DatasetContext(split="train"))
    assert set(data.names) == set(data.target(0)) == {"label", "values"}


def test_options_say_which_fields_they_provide():
    assert DigitsOptions().target_fields() == {"label", "values"}
    assert DigitsOptions(scenes=True).target_fields() == {"boxes", "labels", "mask", "values"}
    assert DigitsOptions(scenes={"count": 3}).targets == ("count",)
    assert DigitsOptions(scenes={}).target_fields() == {"boxes", "labels", "mask", "values"}
    assert DigitsOptions(scenes=False).targets == ("value",)
    again = DigitsOptions(**DigitsOptions(scenes=True).model_dump(mode="json"))
    assert again == DigitsOptions(scenes=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": {"digits": [3, 2]}}, r"`digits` is \[3, 2\]; expected two ascending numbers from 0 on"),
        ({"scenes": {"digits": [-1, 2]}}, "from 0 on"),
        ({"scenes": {"digit_size": [4, 20]}}, "from 8 on"),
        ({"scenes": {"size": 32}}, "a digit of 40 pixels does not fit into a scene of 32"),
        ({"scenes": {"counts": 3}}, "counts"),
        ({"scenes": True, "targets": ["value"]}, "`targets` of scenes are count; got value"),
        ({"targets": ["count"]}, "`targets` of single digits are ink, value; got count"),
        ({"scenes": True, "train": "x"}, "the digits are one set"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValidationError, match=message):
        DigitsOptions(**options)
