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
    "find_images",
    "fit",
    "is_hidden",
    "read_image",
    "require_images",
    "verify_images",
]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What `find_images` takes for an image, in lower case; the file's case does not matter."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
KNOWN = ", ".join(FORMATS)

MAX_PIXELS = 178_956_970
"""Most pixels an image may have. Pillow refuses larger ones itself, as decompression bombs, at its default setting."""

FitMode = Literal["stretch", "crop", "pad"]

ORIENTATION = 0x0112  # the EXIF tag


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


def require_images(paths: Sequence[str | os.PathLike[str]], place: str) -> None:
    """Raises DataError if any of `paths` is unreadable: begins with `place`, names the first and counts the others."""
    bad = verify_images(paths)
    if bad:
        path, cause = bad[0]
        others = f" (and {len(bad) - 1} other{'s' if len(bad) > 2 else ''})" if len(bad) > 1 else ""
        raise DataError(f"{place}: cannot read image {path}: {cause}{others}")


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
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image)
    except Exception as error:
        return _cause(path, error)
    return None


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


def _resize(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.array(resized)
