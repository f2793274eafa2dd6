"""Images of every kind a folder may hold: which are read, and as what; which are refused before they cost anything."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from ftengine.errors import DataError
from ftengine.images import MAX_PIXELS, image_sizes, read_image, read_mask, verify_images

RED = (200, 40, 30)
SIDE = 50_000


def turned(path):
    """A photo that lies on its side, with a note of how to hold it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(np.full((30, 20, 3), RED, np.uint8))).save(path, exif=exif, quality=100, subsampling=0)


def sixteen(path):
    """Grey of 16 bits, about as bright as red is."""
    Image.fromarray(np.full((30, 20), 90 * 257, np.uint16)).save(path)


def animated(path):
    frames = [Image.new("RGB", (20, 30), colour) for colour in (RED, "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def clear(path):
    """Red, with a hole in the corner through which one sees white."""
    pixels = np.full((30, 20, 4), (*RED, 255), np.uint8)
    pixels[:5, :5, 3] = 0
    Image.fromarray(pixels).save(path)


def lab(path):
    Image.new("LAB", (20, 30), (120, 160, 150)).save(path)


def made(mode, size=(20, 30), **options):
    def write(path):
        Image.new("RGB", size, RED).convert(mode).save(path, **options)

    return write


GREY = (86, 86, 86)
"""Red as grey: 0.299 r + 0.587 g + 0.114 b."""

GOOD = {
    "plain.png": (made("RGB"), (30, 20), RED),
    "cmyk.jpg": (made("CMYK", quality=100, subsampling=0), (30, 20), RED),
    "cmyk.tif": (made("CMYK"), (30, 20), RED),
    "sixteen.png": (sixteen, (30, 20), (90, 90, 90)),
    "sixteen.tif": (sixteen, (30, 20), (90, 90, 90)),
    "palette.png": (made("P"), (30, 20), None),  # of its 216 colours the nearest
    "palette.gif": (made("P"), (30, 20), None),
    "grey.jpg": (made("L", quality=100), (30, 20), GREY),
    "grey.png": (made("L"), (30, 20), GREY),
    "grey-alpha.png": (made("LA"), (30, 20), GREY),
    "bits.png": (made("1"), (30, 20), None),
    "turned.jpg": (turned, (30, 20), RED),
    "turned.webp": (turned, (30, 20), RED),
    "one.png": (made("RGB", (1, 1)), (1, 1), RED),
    "one.jpg": (made("RGB", (1, 1), quality=100, subsampling=0), (1, 1), RED),
    "wide.png": (made("RGB", (500, 1)), (1, 500), RED),
    "animated.gif": (animated, (30, 20), RED),
    "animated.png": (animated, (30, 20), RED),
    "animated.webp": (animated, (30, 20), RED),
    "clear.png": (clear, (30, 20), RED),
    "clear.webp": (clear, (30, 20), RED),
    "ycbcr.tif": (made("YCbCr"), (30, 20), RED),
    "lab.tif": (lab, (30, 20), None),
    "upper.JPEG": (made("RGB", quality=100, subsampling=0), (30, 20), RED),
}


@pytest.mark.parametrize("name", GOOD)
def test_each_kind_is_read_as_a_viewer_shows_it(tmp_path, name):
    write, size, colour = GOOD[name]
    write(tmp_path / name)
    assert verify_images([tmp_path / name]) == []
    assert image_sizes([tmp_path / name]) == [size]
    image = read_image(tmp_path / name)
    assert (image.dtype, image.shape) == (np.uint8, (*size, 3))
    if colour is not None:
        assert np.abs(image[-1, -1].astype(int) - colour).max() <= 6
    if name.startswith("clear"):
        assert image[0, 0].min() >= 250


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of two classes with all of them in each."""
    root = tmp_path_factory.mktemp("odd")
    for split in ("train", "val"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for name, (write, _, _) in GOOD.items():
                write(root / split / label / name)
    return root


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_run_over_a_folder_of_them(runs, cli, odd, fit):
    data = {"format": "folder", "root": str(odd), "train": "train", "val": "val", "limit": None, "val_fraction": None}
    run = runs({"data": data, "image": {"size": 16, "fit": fit}, "train": {"epochs": 1, "batch_size": 8}})
    assert run.summary["metrics"]["val"]["accuracy"] == 0.5  # the same images in both classes
    result = cli("predict", run.directory, odd / "val" / "a")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == len(GOOD) + 1  # with the header


BAD = {
    "zero-byte.png": (b"", "the file is empty"),
    "text.jpg": (b"<html>not found</html>", "not an image of a known format"),
    "vector.png": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image of a known format"),
    "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    "bytes.png": (b"\x89PNG\r\n\x1a\n", ""),
    "chunk.png": (b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_refused_by_its_header(tmp_path, name):
    content, cause = BAD[name]
    (tmp_path / name).write_bytes(content)
    ((path, said),) = verify_images([tmp_path / name])
    assert path == str(tmp_path / name)
    assert cause in said
    with pytest.raises(DataError, match=name):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", [name for name in GOOD if name.endswith(("png", "jpg", "gif", "tif", "webp"))])
def test_a_file_that_was_cut_off_is_an_error_whatever_its_kind(tmp_path, name):
    """At any place: never another exception, and never an image with a part missing."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    suffix = name.rpartition(".")[2]
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise).save(whole)
    content = whole.read_bytes()
    for part in (0.05, 0.3, 0.6, 0.9):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(DataError, match="cannot read image"):
            read_image(cut)


# --- too many pixels -------------------------------------------------------------------------------------------------


def png(side=SIDE):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


def tiff(side=SIDE):
    """Uncompressed RGB in one strip, of which there is nothing."""
    tags = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, side),
        (279, 4, 1, 100),
    ]
    return (
        struct.pack("<2sHI", b"II", 42, 8)
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + struct.pack("<I", 0)
    )


def gif(side=SIDE):
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02D\x01\x00;"


def gif_in_a_small_screen(side=SIDE):
    """The screen is of one pixel, the picture on it is not."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02D\x01\x00;"


def bmp(side=SIDE):
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + header


def jpeg(side=SIDE):
    frame = struct.pack(">BHHB", 8, side, side, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda" + bytes(20)


def webp(side=16_384):
    """As large as the format allows: 268 million pixels."""
    bits = 0x2F.to_bytes(1, "little") + ((side - 1) | (side - 1) << 14).to_bytes(4, "little") + bytes(20)
    chunk = b"VP8L" + struct.pack("<I", len(bits)) + bits + bytes(len(bits) % 2)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


@pytest.mark.parametrize(
    "make", [png, tiff, gif, gif_in_a_small_screen, bmp, jpeg, webp], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("lifted", [False, True], ids=["", "Pillow's own limit lifted"])
def test_an_image_of_50000_by_50000_pixels_is_never_decoded(tmp_path, monkeypatch, make, lifted):
    """Not even where another library has switched Pillow's own check off."""
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size))
    if lifted:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    file = tmp_path / f"huge.{make.__name__.partition('_')[0]}"
    file.write_bytes(make())
    assert file.stat().st_size < 1000
    tracemalloc.start()
    try:
        for read in (read_image, read_mask):
            with pytest.raises(DataError) as caught:
                read(file)
            assert f"it has more than {MAX_PIXELS // 1_000_000} million pixels" in str(caught.value)
        assert [said for _, said in verify_images([file])] == ["it has more than 178 million pixels"]
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert decoded == []


def test_the_canary_would_sing(tmp_path, monkeypatch):
    """What the test above waits for happens to every image that is decoded."""
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size) or load(image))
    made("RGB")(tmp_path / "a.png")
    read_image(tmp_path / "a.png")
    assert (20, 30) in decoded


def test_a_run_that_meets_one_is_refused_or_goes_on_without_it(runs, odd, write_image, tmp_path):
    for split in ("train", "val"):
        for label in ("a", "b"):
            for index in range(10):
                write_image(tmp_path / split / label / f"{index}.png", RED, seed=index)
    (tmp_path / "train" / "a" / "huge.png").write_bytes(png())
    data = {"format": "folder", "root": str(tmp_path), "train": "train", "val": "val"}
    data |= {"limit": None, "val_fraction": None}
    run = runs({"data": data, "train": {"batch_size": 8}}, exit_code=1)
    assert "huge.png: it has more than 178 million pixels" in run.result.stderr
    run = runs({"data": data, "train": {"batch_size": 8, "on_bad_sample": {"policy": "quarantine", "budget": 1}}})
    assert "huge.png" in (run.directory / "quarantine.jsonl").read_text()
