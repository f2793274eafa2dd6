"""Image files: finding, checking, reading and fitting them to a size. Everything that datasets need of Pillow.

Images are uint8 [H, W, 3] RGB arrays. Every failure is a :class:`ftengine.errors.DataError` that names the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ftengine.errors import DataError

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "FitMode",
    "check_images",
    "find_images",
    "fit",
    "image_sizes",
    "is_hidden",
    "read_image",
    "read_mask",
    "require_images",
    "verify_images",
]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What `find_images` takes for an image, in lower case; the file's case does not matter."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
KNOWN = ", ".join(FORMATS)

MAX_PIXELS = 178_956_970
"""Most pixels an image may have. Pillow refuses larger ones itself, as decompression bombs, at its default setting."""

MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")
"""What masks are kept in: formats that give back every value as it was written."""

FitMode = Literal["stretch", "crop", "pad"]

ORIENTATION = 0x0112  # the EXIF tag
TRANSPOSED = (5, 6, 7, 8)  # its values that exchange height and width


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The image in file `path`: uint8 [H, W, 3] RGB, turned upright as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit images are converted; transparent pixels are laid over white, as a viewer shows
    them. Of an animation the first frame is read. Raises DataError if there is no such file, it is not an image of a
    known format, is truncated or otherwise broken, or has more than MAX_PIXELS pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image)
            return np.array(_rgb(_upright(image)))
    # Decoders meet a broken file with exceptions of many types (OSError, SyntaxError, ValueError, struct.error, …).
    except Exception as error:
        raise DataError(f"cannot read image {os.fspath(path)}: {_cause(path, error)}") from error


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """The values in mask file `path`, as they are stored: neither palette nor EXIF orientation (but TIFF's) is applied.

    Palette and grey files give their indices, uint8 [H, W] (bilevel ones 0 and 1), or uint16 [H, W] where they have 16
    bits; colour files give uint8 [H, W, 3] RGB. An alpha channel is dropped if nothing is transparent. Raises DataError
    if the file is no PNG, BMP, TIFF or GIF (what JPEG keeps is not what was written), is broken, or is too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image)
            if image.format not in MASK_FORMATS:
                raise ValueError(f"masks are not kept in {image.format}, which may change values; save it as PNG")
            return _values(image)
    except Exception as error:
        raise DataError(f"cannot read mask {os.fspath(path)}: {_cause(path, error)}") from error


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files in `folder` and its subfolders, by extension, sorted by path; links are followed.

    Hidden files and folders (``.DS_Store``, ``._photo.jpg``) and ``__MACOSX`` are left out.
    """
    root = Path(folder)
    return sorted(_walk(root, (root.resolve(),)), key=lambda path: path.relative_to(root).parts)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's rather than the user's."""
    return name.startswith(".") or name == "__MACOSX"


def fit(image: np.ndarray, size: tuple[int, int], mode: FitMode = "stretch") -> np.ndarray:
    """`image`, uint8 [H, W, 3], resampled to `size` = (height, width): uint8 [height, width, 3].

    ``stretch`` changes the aspect ratio where it must; ``crop`` keeps the centre: the largest part that has the
    target's aspect ratio; ``pad`` keeps all of the image and centres it on black. An image that has the size
    already is returned as it is.

    Resampling is Pillow's antialiased bilinear: the filter that torchvision evaluates its published weights with,
    and fixed-point arithmetic, so that every machine gives the same bytes. Shrinking by much goes through a box
    filter first (``reducing_gap``), which brings the cost near that of OpenCV's INTER_AREA.
    """
    height, width = image.shape[:2]
    rows, columns = size
    if (height, width) == (rows, columns):
        return image
    if mode == "stretch":
        return _resize(image, size)
    if mode == "crop":
        scale = max(rows / height, columns / width)
        y, x = (height - rows / scale) / 2, (width - columns / scale) / 2
        return _resize(image, size, (max(x, 0.0), max(y, 0.0), min(width - x, width), min(height - y, height)))
    scale = min(rows / height, columns / width)
    inner = (min(rows, max(1, round(height * scale))), min(columns, max(1, round(width * scale))))
    top, left = (rows - inner[0]) // 2, (columns - inner[1]) // 2
    canvas = np.zeros((rows, columns, 3), np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = _resize(image, inner)
    return canvas


def verify_images(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[str, str]]:
    """The unreadable ones among `paths`, in order, each with the cause.

    Only the headers are read, about 0.1 ms a file: a file that is missing, empty, of no known format or too large is
    found; one that was cut off in its pixels is not, and raises when it is read.
    """
    if not paths:
        return []
    # Threads hide the latency of network disks; on a warm local disk they neither help nor harm.
    with ThreadPoolExecutor(max_workers=8) as pool:
        causes = pool.map(_header_cause, paths, chunksize=64)
        return [(os.fspath(path), cause) for path, cause in zip(paths, causes, strict=True) if cause is not None]


def image_sizes(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[int, int] | str]:
    """(height, width) of each of `paths` as `read_image` will give it, upright; or, as a string, why it is unreadable.

    Only the headers are read, as `verify_images` does. (Of a PNG only an orientation that stands before its pixels,
    where programs write it, is seen.)
    """
    if not paths:
        return []
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(_header_size, paths, chunksize=64))


def require_images(paths: Sequence[str | os.PathLike[str]], place: str) -> None:
    """Raises DataError if any of `paths` is unreadable: begins with `place`, names the first and counts the others."""
    bad = verify_images(paths)
    if bad:
        path, cause = bad[0]
        others = f" (and {len(bad) - 1} other{'s' if len(bad) > 2 else ''})" if len(bad) > 1 else ""
        raise DataError(f"{place}: cannot read image {path}: {cause}{others}")


def check_images(paths: Sequence[str | os.PathLike[str]], place: str, *, tolerant: bool = False) -> dict[int, str]:
    """Which of `paths` are unreadable, by their position, each with a sentence that says why.

    Unless `tolerant`, there is none: what `require_images` raises of any of them is raised.
    """
    unique = list(dict.fromkeys(paths))
    if not tolerant:
        require_images(unique, place)
        return {}
    causes = dict(verify_images(unique))
    names = [os.fspath(path) for path in paths]
    return {index: f"cannot read image {name}: {causes[name]}" for index, name in enumerate(names) if name in causes}


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            path = folder / entry.name
            if entry.is_dir():
                # A link to a folder that we are inside of would lead round for ever.
                target = path.resolve()
                if target not in above:
                    yield from _walk(path, (*above, target))
            elif path.suffix.lower() in EXTENSIONS:
                yield path


def _header_cause(path: str | os.PathLike[str]) -> str | None:
    size = _header_size(path)
    return size if isinstance(size, str) else None


def _header_size(path: str | os.PathLike[str]) -> tuple[int, int] | str:
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image)
            # A PNG's own getexif would decode its pixels, to look for EXIF data behind them. Of a TIFF Pillow itself
            # gives the upright size.
            turned = image.format != "TIFF" and Image.Image.getexif(image).get(ORIENTATION, 1) in TRANSPOSED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:
        return _cause(path, error)


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _cause(path: str | os.PathLike[str], error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS // 1_000_000} million pixels"
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if os.path.getsize(path) == 0 else f"not an image of a known format ({KNOWN})"
    return str(error) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    return image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no known range; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit integer pixels have no known range; save it with 8 or 16 bits a channel")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _values(image: Image.Image) -> np.ndarray:
    """What `read_mask` returns of an opened file."""
    if image.mode in ("RGBA", "LA"):
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError("it has transparent pixels, which stand for no class; save it without alpha channel")
        image = image.convert(image.mode[:-1])
    if image.mode in ("RGB", "L", "P"):
        return np.array(image)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("it has values of more than 16 bits")
        return values.astype(np.uint16)
    raise ValueError(f"pixels of mode {image.mode} are neither indices nor colours")


def _resize(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.array(resized)
