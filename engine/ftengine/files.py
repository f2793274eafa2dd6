"""Files that appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ftengine.pictures import IGNORE, palette


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place if nothing goes wrong; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text` as a file in UTF-8."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_picture(path: Path, picture: np.ndarray) -> None:
    """`picture`, uint8 [H, W, 3], as a PNG."""
    with whole(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")


def write_index_map(path: Path, classes: np.ndarray) -> None:
    """`classes`, uint8 [H, W], as a PNG with these values, which a viewer shows in colours; 255 is black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:IGNORE] = palette(IGNORE)
    image = Image.fromarray(classes)
    image.putpalette(colours.tobytes())
    with whole(path) as temporary:
        image.save(temporary, "PNG")


@contextmanager
def json_list(path: Path) -> Iterator[Callable[[Iterable[Mapping[str, Any]]], None]]:
    """A JSON list, a row a line, written as it grows: call what this gives with the next rows."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        separator = "[\n"

        def extend(rows: Iterable[Mapping[str, Any]]) -> None:
            nonlocal separator
            for row in rows:
                stream.write(separator + json.dumps(row))
                separator = ",\n"

        yield extend
        stream.write("[]\n" if separator == "[\n" else "\n]\n")
