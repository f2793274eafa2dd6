"""Augmentation of boxes and masks: they go with the image, whatever the transform."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

from ftengine.augment import build, check
from ftengine.augment_table import NEEDS, SPOILS, table
from ftengine.errors import ConfigError, DataError
from ftengine.geometry import Scene
from ftengine.protocols import IGNORE

BOTH = frozenset({"boxes", "mask"})
SIZE = {"height": 60, "width": 70}
OPTIONS = {
    "AtLeastOneBBoxRandomCrop": SIZE,
    "CenterCrop": SIZE,
    "CoarseDropout": {"fill_mask": IGNORE},  # so that the mask, too, has only what is still to be seen
    "ConstrainedCoarseDropout": {"mask_indices": [2, 4], "fill_mask": IGNORE},
    "Crop": {"x_max": 90, "y_max": 80},
    "CropAndPad": {"px": [-5, 5]},
    "CropNonEmptyMaskIfExists": SIZE,
    "Erasing": {"fill_mask": IGNORE},
    "GridDropout": {"fill_mask": IGNORE},
    "LongestMaxSize": {"max_size": 80},
    "PadIfNeeded": {"min_height": 110, "min_width": 150},
    "RandomCrop": SIZE,
    "RandomResizedCrop": {"size": [60, 70]},
    "RandomSizedBBoxSafeCrop": SIZE,
    "RandomSizedCrop": {"min_max_height": [40, 70], "size": [60, 70]},
    "Resize": SIZE,
    "SmallestMaxSize": {"max_size": 70},
    "XYMasking": {"num_masks_x": 2, "num_masks_y": 2, "mask_x_length": 9, "mask_y_length": 9, "fill_mask": IGNORE},
    **{name: {"transforms": ["D4", "GaussNoise"]} for name in ("OneOf", "RandomOrder", "Sequential", "SomeOf")},
}

TURNS = {"Affine", "Perspective", "Rotate", "ShiftScaleRotate"}
"""They bound a box's turned corners, also where these lie outside of the image: looser than what is to be seen."""


def make_scene(seed: int) -> Scene:
    """96 × 128, with a rectangle of each of the classes 2 to 5, one in each quarter, on class 1."""
    rng = np.random.default_rng(seed)
    image = np.full((96, 128, 3), 20, np.uint8)
    mask = np.ones((96, 128), np.uint8)
    boxes = []
    for i in range(4):
        height, width = rng.integers(8, 40), rng.integers(8, 56)
        y, x = i // 2 * 48 + rng.integers(49 - height), i % 2 * 64 + rng.integers(65 - width)
        image[y : y + height, x : x + width] = 70 + 60 * i
        mask[y : y + height, x : x + width] = i + 2
        boxes.append([x, y, x + width, y + height])
    return Scene(image, np.array(boxes, np.float64), mask)


def built(name, fields=BOTH, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # albumentations thinks little of some of its transforms
        return build([{"name": name, **OPTIONS.get(name, {}), **options, "p": 1.0}], fields=fields)


def extents(mask, value):
    rows, columns = np.nonzero(mask == value)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) if len(rows) else None


def around(boxes):
    """One box around all of them: a transform may cut an object up, and give each part a box."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


# --- boxes, mask and image agree -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sorted(set(table()) - set(SPOILS)))
def test_boxes_and_masks_go_with_the_image(name):
    augment = built(name)
    for seed in range(8):
        scene = make_scene(seed)
        new = augment(scene, seed)
        assert new.mask.shape == new.image.shape[:2]
        assert new.mask.dtype == np.uint8
        assert set(np.unique(new.mask)) <= {1, 2, 3, 4, 5, IGNORE}
        assert new.boxes.dtype == np.float64
        assert len(new.boxes) == len(new.kept)
        height, width = new.size
        assert (new.boxes >= 0).all()
        assert (new.boxes <= [width, height, width, height]).all()
        assert (new.boxes[:, 2:] - new.boxes[:, :2] > 0.99).all()
        for i in range(4):
            seen, own = extents(new.mask, i + 2), new.boxes[new.kept == i]
            if not len(own):
                assert seen is None or (seen[2:] - seen[:2]).min() <= 1
                continue
            if seen is None:  # a sliver of a box, between the pixels that the mask is sampled at
                assert (own[:, 2:] - own[:, :2]).min() < 1.5
                continue
            margin = np.concatenate([seen[:2] - around(own)[:2], around(own)[2:] - seen[2:]])
            assert margin.min() >= -1.01, "something of the object lies outside of its box"
            if name not in TURNS:
                assert margin.max() <= 1.6, "the box is larger than the object"


@pytest.mark.parametrize(
    "name", ["D4", "Affine", "Perspective", "ElasticTransform", "RandomResizedCrop", "RandomScale"]
)
def test_the_mask_shows_what_the_image_shows(name):
    """In the interior of each object the image has its colour, and the mask its class."""
    augment = built(name)
    for seed in range(8):
        new = augment(make_scene(seed), seed)
        for i in range(4):
            seen = new.image[new.mask == i + 2]
            if len(seen) > 60:
                assert np.median(seen) == 70 + 60 * i


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sorted(set(table()) - set(SPOILS)))
def test_images_without_boxes_are_fine(name):
    scene = make_scene(0)
    new = built(name)(Scene(scene.image, np.zeros((0, 4)), scene.mask), 1)
    assert new.boxes.shape == (0, 4)
    assert new.kept.shape == (0,)
    assert new.kept.dtype == np.int64


@pytest.mark.parametrize("name", ["HorizontalFlip", "Affine", "CoarseDropout", "ThinPlateSpline", "RandomGridShuffle"])
def test_many_boxes_with_fractions_go_along(name):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 80, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 16, (60, 2))], axis=1)
    new = built(name)(Scene(make_scene(0).image, boxes, make_scene(0).mask), 3)
    assert len(set(new.kept.tolist())) > 30


# --- edges -----------------------------------------------------------------------------------------------------


def test_boxes_are_moved_exactly_where_pixels_are():
    scene = make_scene(1)
    new = build(["HorizontalFlip"], fields=BOTH)(scene, next(s for s in range(99) if flips(scene, s)))
    left, top, right, bottom = scene.boxes.T
    np.testing.assert_allclose(new.boxes, np.stack([128 - right, top, 128 - left, bottom], axis=1), atol=1e-9)
    np.testing.assert_array_equal(new.mask, scene.mask[:, ::-1])


def flips(scene, seed):
    return not np.array_equal(build(["HorizontalFlip"], fields=BOTH)(scene, seed).image, scene.image)


def test_boxes_are_cut_at_the_edge_and_dropped_beyond_it():
    boxes = np.array([[0.0, 0, 20, 20], [10, 10, 60, 60], [30, 30, 60, 60], [39.5, 0, 60, 20], [39, 0, 60, 20]])
    crop = {"name": "Crop", "x_max": 40, "y_max": 40, "p": 1.0}
    scene = Scene(make_scene(0).image, boxes, kept=np.array([7, 5, 3, 2, 9]))
    new = build([crop], fields={"boxes"})(scene, 0)
    expected = [[0, 0, 20, 20], [10, 10, 40, 40], [30, 30, 40, 40], [39, 0, 40, 20]]
    np.testing.assert_allclose(new.boxes, expected, atol=1e-4)
    assert new.kept.tolist() == [7, 5, 3, 9]  # as numbered before
    empty = build([{**crop, "x_max": 10, "y_max": 5}], fields={"boxes"})(replace_boxes(scene, boxes[2:]), 0)
    assert (empty.boxes.shape, empty.kept.tolist()) == ((0, 4), [])


def replace_boxes(scene, boxes):
    return Scene(scene.image, boxes)


def test_rounding_beyond_the_edge_never_raises():
    edge = np.nextafter(128.0, 200)
    boxes = np.array([[0.0, 0, edge, 96], [-1e-12, -1e-9, 5, 5], [127.9999999, 0, 128, 96], [3, 3, 3, 9], [5, 5, 6, 6]])
    augment = build(["HorizontalFlip", {"name": "Rotate", "p": 1.0}, "ColorJitter"], fields={"boxes"})
    for seed in range(20):
        assert set(augment(Scene(make_scene(0).image, boxes), seed).kept.tolist()) <= {0, 1, 4}


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "Affine", "translate_px": {"x": 30, "y": 0}},
        {"name": "Rotate", "limit": [30, 30]},
        {"name": "PadIfNeeded", "min_height": 150, "min_width": 150},
        {"name": "Perspective", "scale": [0.1, 0.1], "fit_output": True},
        {"name": "ShiftScaleRotate", "shift_limit": [0.2, 0.2]},
    ],
    ids=lambda entry: entry["name"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_comes_from_beyond_the_image_is_ignored(entry):
    scene = Scene(np.full((96, 128, 3), 200, np.uint8), mask=np.full((96, 128), 3, np.uint8))
    entry = {**entry, "p": 1.0}
    for nested in (
        [entry],
        [{"name": "OneOf", "p": 1.0, "transforms": [{"name": "Sequential", "transforms": [entry]}]}],
    ):
        if nested[0] is not entry:
            nested[0]["transforms"][0]["p"] = 1.0
        new = build(nested, fields={"mask"})(scene, 0)
        assert set(np.unique(new.mask)) == {3, IGNORE}
        black = (new.image == 0).all(-1)
        assert black.sum() > 100
        assert (new.mask[black] == IGNORE).all()
    chosen = build([{**entry, "fill_mask": 1}], fields={"mask"})(scene, 0)
    assert set(np.unique(chosen.mask)) == {1, 3}


def test_a_mirrored_border_mirrors_boxes_and_mask():
    entry = {"name": "Pad", "padding": 40, "border_mode": 4, "p": 1.0}
    new = build([entry], fields=BOTH)(make_scene(2), 0)
    assert IGNORE not in new.mask
    assert max(np.bincount(new.kept)) > 1
    for box, number in zip(new.boxes.round().astype(int), new.kept, strict=True):
        assert (new.mask[box[1] : box[3], box[0] : box[2]] == number + 2).mean() > 0.85


def test_dropouts_leave_the_mask_and_drop_what_is_covered():
    scene = Scene(make_scene(0).image, np.array([[10.0, 10, 20, 20], [40, 40, 80, 80]]), make_scene(0).mask)
    entry = {"name": "CoarseDropout", "num_holes_range": [1, 1], "p": 1.0}
    entry |= {"hole_height_range": [0.9, 0.9], "hole_width_range": [0.9, 0.9]}  # wherever it is, it hides the second
    for seed in range(5):
        new = build([entry], fields=BOTH)(scene, seed)
        np.testing.assert_array_equal(new.mask, scene.mask)
        assert 1 not in new.kept


# --- randomness ------------------------------------------------------------------------------------------------


PIPELINE = [
    "HorizontalFlip",
    {"name": "RandomResizedCrop", "size": [64, 64]},
    {"name": "OneOf", "transforms": ["ElasticTransform", {"name": "Rotate", "limit": 20}]},
    "RandomBrightnessContrast",
    "CoarseDropout",
]


def test_a_scene_depends_on_the_seed_alone_and_its_image_not_on_what_it_holds():
    augment = build(PIPELINE, fields=BOTH)
    again = pickle.loads(pickle.dumps(augment))
    scenes = {seed: augment(make_scene(seed), seed) for seed in range(12)}
    for seed in reversed(range(12)):
        new, scene = again(make_scene(seed), seed), make_scene(seed)
        for field in ("image", "boxes", "mask", "kept"):
            np.testing.assert_array_equal(getattr(new, field), getattr(scenes[seed], field))
        np.testing.assert_array_equal(build(PIPELINE)(Scene(scene.image), seed).image, new.image)
        bare = augment(Scene(scene.image), seed)
        np.testing.assert_array_equal(bare.image, new.image)
        assert (bare.boxes, bare.mask, bare.kept) == (None, None, None)


def test_the_scene_stays_as_it_is():
    scene, copy = make_scene(0), make_scene(0)
    build(PIPELINE, fields=BOTH)(scene, 0)
    for field in ("image", "boxes", "mask"):
        np.testing.assert_array_equal(getattr(scene, field), getattr(copy, field))


# --- checking and failing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_transforms_that_need_boxes_or_masks_say_so(name):
    entry = {"name": "OneOf", "transforms": [{"name": name, **OPTIONS.get(name, {})}]}
    [needed] = NEEDS[name]
    message = f"{name} cannot be used: it needs {needed}, which the data do not have"
    assert check([entry], frozenset()) == [("[0].transforms[0]", message)]
    assert ("[0].transforms[0]", message) in check([entry], BOTH - {needed})
    assert check([entry], {needed}) == []


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in SPOILS for field in SPOILS[name]])
def test_transforms_that_spoil_boxes_or_masks_are_refused_with_them(name, field):
    entry = {"name": name, **({"num_grid_xy": [2, 2], "magnitude": 3} if name == "GridElasticDeform" else {})}
    [(_, message)] = check([entry], frozenset({field, *NEEDS.get(name, [])}))
    assert message.startswith(f"{name} cannot be used: it would ")
    assert check([entry], frozenset(NEEDS.get(name, []))) == []


@pytest.mark.parametrize("name", sorted(set(table()) - set(SPOILS)))
def test_what_albumentations_asks_for_is_among_the_needs(name):
    made = built(name)._compose.transforms[0]
    asked = {"bboxes": "boxes", "mask": "mask"}
    found = {asked[key] for key in getattr(made, "targets_as_params", []) if key in asked}
    assert found <= set(NEEDS.get(name, []))


def test_masks_are_not_interpolated():
    entry = {"name": "Resize", "height": 8, "width": 8, "mask_interpolation": 1}
    assert check([entry], {"boxes"}) == []
    [(place, message)] = check([entry], {"mask"})
    assert (place, message) == (
        "[0].mask_interpolation",
        "expected 0, since the numbers of classes do not mix; got 1",
    )
    with pytest.raises(ConfigError, match="do not mix"):
        build([entry], fields={"mask"})


def test_a_failure_names_its_entry_with_boxes_too():
    augment = build(["HorizontalFlip", {"name": "RandomCrop", "height": 200, "width": 8}], "augment", BOTH)
    with pytest.raises(DataError, match=r"^augment\[1\]: RandomCrop failed on an image of 96×128×3: "):
        augment(make_scene(0), 0)


def test_a_mask_of_another_shape_names_the_entry(monkeypatch):
    import albumentations

    monkeypatch.setattr(albumentations.Transpose, "apply_to_mask", lambda self, mask, **params: mask[:5])
    augment = build(["HorizontalFlip", {"name": "Transpose", "p": 1}], fields={"mask"})
    with pytest.raises(
        DataError, match=r"^augment\[1\]: Transpose made a mask of uint8 5×128 and an image of 128×96×3"
    ):
        augment(Scene(make_scene(0).image, mask=make_scene(0).mask), 0)


def test_boxes_that_were_not_announced_are_a_mistake():
    with pytest.raises(ValueError, match="a scene with boxes"):
        build(["HorizontalFlip"])(make_scene(0), 0)
