"""Sizes from headers, and masks read as they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ftengine.errors import DataError
from ftengine.images import image_sizes, read_image, read_mask


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_sizes_are_those_of_the_upright_image(tmp_path, extension, orientation):
    path = tmp_path / f"a.{extension}"
    Image.new("RGB", (7, 4)).save(path, exif=turned(orientation))
    assert image_sizes([path]) == [(7, 4) if orientation in (6, 8) else (4, 7)]
    assert image_sizes([path]) == [read_image(path).shape[:2]]


def test_sizes_come_in_order_with_the_cause_where_there_is_none(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    paths = [tmp_path / "b.png", tmp_path / "a.png", tmp_path / "c.png"]
    assert image_sizes(paths) == ["the file is empty", (2, 3), "no such file"]
    assert image_sizes([]) == []


def test_the_pixels_are_not_decoded(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:200])
    assert image_sizes([tmp_path / "a.png"]) == [(50, 60)]


VALUES = np.array([[0, 1, 2], [11, 1, 255]], np.uint8)


def test_grey_and_palette_masks_give_their_indices(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "grey.png")
    image = Image.fromarray(VALUES, mode="P")
    image.putpalette([7, 8, 9] * 256)
    image.save(tmp_path / "palette.png", transparency=0)
    for name in ("grey.png", "palette.png"):
        read = read_mask(tmp_path / name)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, VALUES)


def test_bilevel_masks_are_zero_and_one(tmp_path):
    Image.fromarray(VALUES > 1).save(tmp_path / "a.png")
    read = read_mask(tmp_path / "a.png")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, VALUES > 1)


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_sixteen_bits_are_kept(tmp_path, extension):
    deep = np.array([[0, 300], [65535, 1]], np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{extension}")
    read = read_mask(tmp_path / f"a.{extension}")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, deep)


def test_colours_are_kept_and_opaque_alpha_is_dropped(tmp_path):
    colours = np.array([[[1, 2, 3], [200, 0, 0]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "rgb.png"), colours)
    layered = np.dstack([colours, np.full((1, 2), 255, np.uint8)])
    Image.fromarray(layered).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "rgba.png"), colours)
    layered[0, 0, 3] = 0
    Image.fromarray(layered).save(tmp_path / "clear.png")
    with pytest.raises(DataError, match=r"clear\.png: it has transparent pixels"):
        read_mask(tmp_path / "clear.png")


def test_masks_are_not_turned(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "a.png", exif=turned(6))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), VALUES)


def test_what_is_no_mask_is_refused(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"cannot read mask .*a\.jpg: masks are not kept in JPEG"):
        read_mask(tmp_path / "a.jpg")
    Image.fromarray(VALUES.astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff: pixels of mode F are neither indices nor colours"):
        read_mask(tmp_path / "a.tiff")
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "b.tiff")
    with pytest.raises(DataError, match=r"b\.tiff: it has values of more than 16 bits"):
        read_mask(tmp_path / "b.tiff")
    with pytest.raises(DataError, match=r"c\.png: no such file"):
        read_mask(tmp_path / "c.png")
