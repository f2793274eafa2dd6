"""Reading, finding, checking and fitting images."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ftengine.errors import DataError
from ftengine.images import find_images, fit, read_image, require_images, verify_images


@pytest.fixture
def picture() -> np.ndarray:
    """Uint8 [12, 20, 3], every pixel another."""
    rows, columns = np.mgrid[0:12, 0:20]
    return np.stack([rows * 20, columns * 12, rows + columns], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff", "gif", "webp"])
def test_lossless_formats_give_the_same_pixels(tmp_path, picture, extension):
    path = tmp_path / f"a.{extension}"
    options = {"lossless": True} if extension == "webp" else {}
    Image.fromarray(picture).save(path, **options)
    read = read_image(path)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, picture)


def test_jpeg_is_close(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, picture, orientation):
    turned = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, -1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned)


def test_grey_and_bilevel(tmp_path):
    grey = np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, -1))
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 1], np.where(grey > 100, 255, 0))


def test_sixteen_bits_keep_their_range(tmp_path):
    deep = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    expected = np.array([[0, 0, 1], [128, 255, 255]], dtype=np.uint8)
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(deep).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 0], expected)


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (200, 10, 10, 255)
    rgba[0, 1] = (200, 10, 10, 0)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [200, 10, 10]
    assert read[0, 1].tolist() == [255, 255, 255]


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.frombytes("P", (2, 2), bytes([0, 1, 1, 0]))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "opaque.png")
    assert read_image(tmp_path / "opaque.png")[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    image.save(tmp_path / "clear.png", transparency=0)
    assert read_image(tmp_path / "clear.png")[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff")[0, 0].tolist() == [255, 0, 0]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_float_and_wide_integer_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(DataError, match=r"f\.tiff.*float pixels"):
        read_image(tmp_path / "f.tiff")
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(DataError, match=r"i\.tiff.*32-bit integer"):
        read_image(tmp_path / "i.tiff")


def huge_png(path):
    """A PNG of 20000 × 10000 pixels by its header, with hardly any in it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 10000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))


@pytest.fixture
def broken(tmp_path, picture):
    """One file of each way to be unreadable: name -> (path, cause as a pattern)."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "folder.jpg").mkdir()
    huge_png(tmp_path / "huge.png")
    Image.fromarray(picture).save(tmp_path / "other.ppm")
    (tmp_path / "other.ppm").rename(tmp_path / "other.png")
    return {
        "cut.jpg": "truncated",
        "empty.png": "empty",
        "text.jpg": "not an image of a known format",
        "other.png": "not an image of a known format",
        "folder.jpg": "folder",
        "huge.png": "more than 178 million pixels",
        "missing.jpg": "no such file",
    }


def test_errors_name_the_file_and_the_cause(tmp_path, broken):
    for name, cause in broken.items():
        with pytest.raises(DataError, match=cause) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_verify_finds_what_a_header_shows(tmp_path, broken):
    paths = [tmp_path / "whole.jpg", *(tmp_path / name for name in broken)]
    found = dict(verify_images(paths))
    assert set(found) == {str(tmp_path / name) for name in broken if name != "cut.jpg"}
    assert found[str(tmp_path / "missing.jpg")] == "no such file"
    assert verify_images([]) == []


def test_require_names_the_first_and_counts_the_others(tmp_path, broken):
    good, empty, text, missing = (tmp_path / name for name in ("whole.jpg", "empty.png", "text.jpg", "missing.jpg"))
    require_images([good], "data.train")
    with pytest.raises(DataError, match=r"^data\.train: .*empty\.png: the file is empty$"):
        require_images([good, empty], "data.train")
    with pytest.raises(DataError, match=r"empty\.png: the file is empty \(and 1 other\)$"):
        require_images([empty, text], "data.train")
    with pytest.raises(DataError, match=r"\(and 2 others\)$"):
        require_images([empty, text, missing], "data.train")


def test_find_images_sorts_and_ignores(tmp_path):
    names = ["b/2.png", "b/1.JPG", "a.b/1.webp", "a/deep/er/1.tif", "z.bmp"]
    ignored = ["notes.txt", ".DS_Store", ".hidden/1.png", "__MACOSX/1.png", "b/._1.JPG"]
    for name in names + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a/deep/er/1.tif", "a.b/1.webp", "b/1.JPG", "b/2.png", "z.bmp"]


def test_find_images_follows_links_but_not_round_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.png").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "real", root / "link")
    os.symlink(root, root / "loop")
    assert [path.relative_to(root).as_posix() for path in find_images(root)] == ["link/1.png"]


def test_fit_returns_the_image_itself_where_the_size_matches(picture):
    for mode in ("stretch", "crop", "pad"):
        assert fit(picture, (12, 20), mode) is picture


@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (5, 31), (64, 3), (100, 200)])
@pytest.mark.parametrize("shape", [(12, 20), (1, 300), (33, 2), (50, 50)])
def test_fit_gives_the_size(mode, size, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    result = fit(image, size, mode)
    assert result.shape == (*size, 3)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, fit(image.copy(), size, mode))


def test_fit_keeps_what_each_mode_promises():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, :10], image[:, 10:20], image[:, 20:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    thirds = fit(image, (30, 30), "stretch")[15, [4, 15, 25]]
    assert thirds.tolist() == [[250, 0, 0], [0, 250, 0], [0, 0, 250]]
    assert (fit(image, (20, 20), "crop")[:, 1:-1] == (0, 250, 0)).all()
    padded = fit(image, (30, 30), "pad")
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    np.testing.assert_array_equal(padded[10:20], image)


def test_fit_is_antialiased():
    board = np.indices((256, 256)).sum(0) % 2 * 255
    small = fit(np.repeat(board[..., None], 3, -1).astype(np.uint8), (20, 20))
    assert np.abs(small.astype(int) - 127).max() <= 6
