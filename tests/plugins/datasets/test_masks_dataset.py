"""The `masks` dataset."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ftengine.errors import DataError
from ftengine.protocols import IGNORE, DatasetContext
from ftengine_datasets import masks as module
from ftengine_datasets.annotation_options import MaskOptions
from ftengine_datasets.masks import masks

A = np.array([[0, 1, 2], [2, 11, 1]], np.uint8)
B = np.array([[1, 1], [1, 0]], np.uint8)
NAMES = ["sky", "road", "car"]


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


@pytest.fixture
def root(tmp_path):
    """train: a (3×2 pixels, with an 11) and deep/b (2×2); val: c, like b."""
    root = tmp_path / "data"
    for name, values in (("train/{}/a", A), ("train/{}/deep/b", B), ("val/{}/c", B)):
        save(root / f"{name.format('images')}.jpg", np.zeros((*values.shape, 3), np.uint8))
        save(root / f"{name.format('masks')}.png", values)
    return root


def load(root, split="train", **options):
    options = {"train": "train", "classes": NAMES, "ignore": 11, **options}
    return masks(MaskOptions(root=root, **options), DatasetContext(split=split))


def fails(root, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        load(root, **options)
    return str(caught.value)


def test_masks_hold_class_indices(root):
    data = load(root)
    assert len(data) == 2
    assert [data.sample_id(i) for i in range(2)] == ["train/images/a.jpg", "train/images/deep/b.jpg"]
    assert [data.size(i) for i in range(2)] == [(2, 3), (2, 2)]
    assert data.names == {"mask": ("sky", "road", "car")}
    assert data.ids == {"mask": (0, 1, 2)}
    assert data.notes == ()
    assert data.target(0).keys() == {"mask_checksum"}
    mask = data.mask(0)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, [[0, 1, 2], [2, IGNORE, 1]])
    sample = data[1]
    assert sample.image.shape == (2, 2, 3)
    np.testing.assert_array_equal(sample.target["mask"], B)


def test_masks_that_are_ignored_as_a_whole(root):
    for name, values in (("a", A), ("deep/b", B)):
        save(root / f"train/masks/{name}.png", np.full_like(values, 11))
    fails(root, "train: .*masks: no pixel of any mask has a class; all are ignored")


def test_a_checked_mask_that_changes_changes_its_target(root):
    before = [load(root).target(i) for i in range(2)]
    save(root / "train/masks/deep/b.png", 1 - B)
    after = [load(root).target(i) for i in range(2)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
    assert load(root, verify=False).target(0) == {}


def test_each_split_reads_its_own_folder(root):
    assert load(root, "val", val="val").sample_id(0) == "val/images/c.jpg"


def test_folders_may_be_given_apart(root):
    where = {"images": "train/images", "masks": "train/masks"}
    assert len(load(root, train=where)) == 2
    fails(root, r"^train: masks: no folder .*/mask; did you mean .*/masks\?", train={**where, "masks": "train/mask"})
    fails(root, "^train: images: no folder .*/trains/images", train="trains")


def test_it_pickles(root):
    data = load(root)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.mask(0), data.mask(0))
    assert len(pickle.dumps(data)) < 200_000


def test_a_mapping_gives_values_of_their_own(root):
    data = load(root, classes={"car": 2, "sky": 0, "road": 1}, ignore=[11, 255])
    assert data.names == {"mask": ("car", "sky", "road")}
    assert data.ids == {"mask": (2, 0, 1)}
    np.testing.assert_array_equal(data.mask(0), [[1, 2, 0], [0, IGNORE, 2]])


def test_values_of_sixteen_bits(root):
    save(root / "train/masks/a.png", np.array([[0, 1000, 2], [2, 60000, 1000]], np.uint16))
    data = load(root, classes={"sky": 0, "road": 1000, "car": 2, "one": 1}, ignore=60000)
    np.testing.assert_array_equal(data.mask(0), [[0, 1, 2], [2, IGNORE, 1]])
    np.testing.assert_array_equal(data.mask(1), [[3, 3], [3, 0]])
    assert data.ids == {}


def test_the_last_class_is_not_taken_for_ignored(root):
    names = [f"class {i}" for i in range(255)]
    save(root / "train/masks/a.png", np.array([[254, 254, 254], [254, 254, 255]], np.uint8))
    np.testing.assert_array_equal(load(root, classes=names, ignore=255).mask(0), [[254] * 3, [254, 254, IGNORE]])


COLOURS = {"sky": (128, 128, 128), "road": (128, 64, 128), "car": (64, 0, 128)}


def coloured(values):
    colours = np.array([*COLOURS.values(), *((1, 2, 3) for _ in range(9))], np.uint8)
    return colours[values]


@pytest.fixture
def colour_root(root):
    save(root / "train/masks/a.png", coloured(A))
    save(root / "train/masks/deep/b.png", coloured(B))
    return root


def test_colour_maps(colour_root):
    for ignore in ([1, 2, 3], [[9, 9, 9], [1, 2, 3]]):
        data = load(colour_root, classes=COLOURS, ignore=ignore)
        assert data.names == {"mask": ("sky", "road", "car")}
        assert data.ids == {}
        np.testing.assert_array_equal(data.mask(0), [[0, 1, 2], [2, IGNORE, 1]])
        np.testing.assert_array_equal(data.mask(1), B)


def test_colours_outside_of_the_classes(colour_root):
    message = r"1 problem:\n  mask .*a\.png: colour \(1, 2, 3\) in 1 pixels, outside of `classes` and `ignore`$"
    fails(colour_root, message, classes=COLOURS, ignore=[])


def test_colours_where_values_are_expected_and_the_other_way_round(root):
    fails(root, "holds values, but `classes` gives colours", classes=COLOURS, ignore=[])
    save(root / "train/masks/a.png", coloured(A))
    fails(root, r"1 problem:\n  mask .*a\.png: holds colours, but `classes` gives values$")


def test_palettes_do_not_matter(root):
    image = Image.fromarray(A, mode="P")
    image.putpalette([200, 100, 0] * 256)
    image.save(root / "train/masks/a.png")
    np.testing.assert_array_equal(load(root).mask(0), [[0, 1, 2], [2, IGNORE, 1]])


def test_values_outside_of_the_classes_are_named(root):
    text = fails(root, "^train: .*masks: 1 problem:", ignore=[])
    assert text.endswith("train/masks/a.png: value 11 in 1 pixels, outside of `classes` and `ignore`")
    fails(root, r"a\.png: values 1, 2, 11 in 5 pixels", classes={"sky": 0, "road": 3}, ignore=[])
    many = np.arange(200, 212, dtype=np.uint8).reshape(4, 3)
    save(root / "train/masks/deep/b.png", many)
    fails(root, r"b\.png: values 200, 201, 202, 203, 204, 205, … \(\+6\) in 12 pixels")


def test_without_verification_values_are_found_when_they_are_read(root):
    data = load(root, ignore=[], verify=False)
    assert data.size(0) is None
    np.testing.assert_array_equal(data.mask(1), B)
    with pytest.raises(DataError, match=r"mask .*a\.png: value 11 in 1 pixels"):
        data.mask(0)


def test_masks_of_another_size(root):
    save(root / "train/masks/a.png", A.T)
    save(root / "train/masks/deep/b.png", A)
    text = fails(root, "2 problems")
    assert "mask train/masks/a.png has 2×3 pixels, its image 3×2" in text
    assert "mask train/masks/deep/b.png has 3×2 pixels, its image 2×2" in text


def test_images_are_turned_upright_before_they_are_compared(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 2)).save(root / "train/images/a.jpg", exif=exif)
    fails(root, r"a\.png has 3×2 pixels, its image 2×3")
    save(root / "train/masks/a.png", A.T)
    data = load(root)
    assert data.image(0).shape[:2] == data.mask(0).shape == data.size(0) == (3, 2)


def test_what_cannot_be_read(root):
    (root / "train/images/a.jpg").write_bytes(b"")
    whole = (root / "train/masks/deep/b.png").read_bytes()
    (root / "train/masks/deep/b.png").write_bytes(whole[:44])
    text = fails(root, "2 problems")
    assert "images/a.jpg: the file is empty" in text
    assert "cannot read mask" in text
    save(root / "train/masks/a.jpg", A)
    (root / "train/masks/a.png").unlink()
    fails(root, "masks are not kept in JPEG")


def test_images_without_mask_and_masks_without_image(root):
    (root / "train/masks/a.png").rename(root / "train/masks/aa.png")
    text = fails(root, "2 problems")
    assert "no mask a.png for image a.jpg; did you mean aa.png?" in text
    assert "mask aa.png: its image is missing in" in text


def test_two_masks_or_two_images_of_one_name(root):
    save(root / "train/masks/a.bmp", A)
    fails(root, r"a\.bmp and a\.png are both the mask of one image")
    (root / "train/masks/a.bmp").unlink()
    save(root / "train/images/a.png", np.zeros((2, 3, 3), np.uint8))
    fails(root, r"a\.jpg and a\.png are both the image of mask a\.png")


def test_no_images(root):
    (root / "bare" / "images").mkdir(parents=True)
    (root / "bare" / "masks").mkdir()
    fails(root, "there are no images in", train="bare")


def test_suffixes(root):
    (root / "train/masks/a.png").rename(root / "train/masks/a_mask.png")
    fails(root, r"mask b\.png is not called as `mask_suffix` '_mask' says", mask_suffix="_mask")
    (root / "train/masks/deep/b.png").rename(root / "train/masks/deep/b_mask.png")
    np.testing.assert_array_equal(load(root, mask_suffix="_mask").mask(1), B)


def test_images_and_masks_in_one_folder(root):
    save(root / "both" / "x.jpg", np.zeros((2, 2, 3), np.uint8))
    save(root / "both" / "x_mask.png", B)
    where = {"images": "both", "masks": "both"}
    data = load(root, train=where, mask_suffix="_mask")
    assert [data.sample_id(i) for i in range(len(data))] == ["both/x.jpg"]
    fails(root, "`mask_suffix` must say how masks are called", train=where)


def test_verification_reads_masks_in_threads(root, monkeypatch):
    """Two masks are being read at one time: each read waits for another to begin."""
    both = threading.Barrier(2, timeout=20)

    def read(path):
        both.wait()
        return A if path.name == "a.png" else B

    monkeypatch.setattr(module, "read_mask", read)
    assert len(load(root)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "names a class twice"),
        ({"classes": {"a": 1, "b": 1}}, "a and b are both 1"),
        ({"classes": {"a": [1, 2, 3], "b": [1, 2, 3]}}, r"a and b are both \(1, 2, 3\)"),
        ({"classes": ["a", "b"], "ignore": 1}, "b and `ignore` are both 1"),
        ({"classes": {"a": [1, 2, 3]}, "ignore": [1, 2, 3]}, r"a and `ignore` are both \(1, 2, 3\)"),
        ({"classes": {"a": [1, 2, 3]}, "ignore": 7}, "mix values with colours"),
        ({"classes": ["a"], "ignore": [[1, 2, 3]]}, "mix values with colours"),
        ({"classes": {"a": 65536}}, "65535"),
        ({"classes": {"a": [1, 2, 256]}}, "255"),
        ({"classes": [str(i) for i in range(256)]}, "at most 255"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValidationError, match=message):
        MaskOptions(train="train", **options)


def test_three_values_are_not_taken_for_a_colour():
    assert MaskOptions(train="t", classes=["a"], ignore=[1, 2, 3]).ignored == (1, 2, 3)
    assert MaskOptions(train="t", classes={"a": [0, 0, 0]}, ignore=[1, 2, 3]).ignored == ((1, 2, 3),)
    assert MaskOptions(train="t", classes=["a"]).ignored == ()
