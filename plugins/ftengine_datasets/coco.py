"""The `coco` dataset: boxes from a JSON file a split, in the format of Microsoft COCO (Lin et al. 2014).

A box is ``[x, y, width, height]`` in pixels, 0 at the image's left and upper edge. Category ids may have gaps; the
classes are the categories by ascending id. ``iscrowd`` boxes stand for groups. ``area``, the area of the object rather
than of its box, sorts objects into small, medium and large in COCO's evaluation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftengine.errors import DataError, name_list, unknown
from ftengine.protocols import DatasetContext
from ftengine_datasets.annotation_options import CocoOptions
from ftengine_datasets.boxes import BoxDataset, Boxes, mend, real_sizes
from ftengine_datasets.paths import data_root, inside, locate, require
from ftengine_datasets.report import Report


def coco(options: CocoOptions, context: DatasetContext) -> BoxDataset:
    """The split that `context` names: its images in the order of their ids, those without boxes among them.

    Raises DataError for a missing or malformed file, and, with all cases, for an image that is listed twice, cannot be
    read or has another size than stated, an annotation of an unknown image or category, an id that occurs twice, and
    what :func:`~ftengine_datasets.boxes.mend` cannot repair.
    """
    part = getattr(options, context.split)
    folder, path = locate(options.root, part.images), locate(options.root, part.annotations)
    require(folder, f"{context.split}: images", folder=True)
    require(path, f"{context.split}: annotations", folder=False)
    root = data_root(options.root, folder)
    report = Report(context.split, path)
    content = _parse(path, context.split)
    classes = _classes(content["categories"], options.classes, report)
    images = _images(content["images"], report)
    raw, numbers = _boxes(content["annotations"], images, classes, report)
    del content

    paths = _paths(images, root, folder, report)
    unreadable: dict[int, str] | None = {} if context.tolerant else None
    sizes = real_sizes(paths, images.stated, images.name, report, verify=options.verify, unreadable=unreadable)
    boxes = mend(raw, sizes, lambda m: f"annotation {numbers[m]} ({images.files[raw.image[m]]})", report)
    report.check()
    files = [path.relative_to(root).as_posix() for path in paths if path is not None]
    return BoxDataset(
        root,
        files,
        sizes,
        boxes,
        classes.names,
        ids=classes.ids,
        notes=report.notes,
        unreadable=unreadable or {},
    )


@dataclass(frozen=True)
class Images:
    """The list `images` by ascending id: int64 [N] `ids`, file names, and `stated` (height, width), 0 where not."""

    ids: np.ndarray
    files: list[str]
    stated: np.ndarray

    def name(self, index: int) -> str:
        return f"image {self.ids[index]} ({self.files[index]})"


@dataclass(frozen=True)
class Classes:
    """The categories to learn, `names` with `ids`, in index order; `known`: all ids of the list."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    known: tuple[int, ...]


def _parse(path: Path, split: str) -> dict[str, list[Any]]:
    """The file's three lists. Outlines, most of a file, are dropped as they are read: nothing needs them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_without_outline)
    except json.JSONDecodeError as error:
        raise DataError(f"{split}: {path}:{error.lineno}: no JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{split}: {path} is not a JSON file: {error}") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict):
        what = "a list (of results?)" if isinstance(content, list) else repr(content)[:40]
        raise DataError(f"{split}: {path} holds {what}; expected an object with the lists {', '.join(keys)}")
    missing = [key for key in keys if not isinstance(content.get(key), list)]
    if missing:
        raise DataError(f"{split}: {path} has no list {name_list(missing)}; it has {name_list(content)}")
    empty = [key for key in ("images", "categories") if not content[key]]
    if empty:
        raise DataError(f"{split}: {path} lists no {empty[0]}")
    return content


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _classes(entries: list[Any], wanted: tuple[str, ...] | None, report: Report) -> Classes:
    rows = sorted(_rows(entries, "categories", lambda entry: (_whole(entry, "id"), _text(entry, "name")), report))
    ids, names = [row[0] for row in rows], [row[1] for row in rows]
    report.problems(_repeated(ids), lambda i: f"category id {ids[i]} is that of both {names[i]!r} and {names[i - 1]!r}")
    by_name: dict[str, int] = {}
    for number, name in rows:
        if by_name.setdefault(name, number) != number:
            report.problem(f"categories {by_name[name]} and {number} are both called {name!r}")
    for name in wanted or ():
        if name not in by_name:
            report.problem(unknown("category", name, by_name) + " (in `classes`)")
    chosen = tuple(by_name) if wanted is None else tuple(name for name in wanted if name in by_name)
    return Classes(chosen, tuple(by_name[name] for name in chosen), tuple(ids))


def _images(entries: list[Any], report: Report) -> Images:
    def row(entry: Mapping[str, Any]) -> tuple[int, str, int, int]:
        stated = [_whole(entry, key) if entry.get(key) is not None else 0 for key in ("height", "width")]
        return _whole(entry, "id"), _text(entry, "file_name"), stated[0], stated[1]

    rows = sorted(_rows(entries, "images", row, report))
    ids, files = [row[0] for row in rows], [row[1] for row in rows]
    report.problems(_repeated(ids), lambda i: f"image {ids[i]} has two records ({files[i - 1]}, {files[i]})")
    stated = np.array([row[2:] for row in rows], np.int64).reshape(-1, 2)
    return Images(np.array(ids, np.int64), files, stated)


def _paths(images: Images, root: Path, folder: Path, report: Report) -> list[Path | None]:
    """Where each image is; None where that is a problem."""
    seen: dict[Path, int] = {}
    paths: list[Path | None] = []
    for index, file in enumerate(images.files):
        try:
            path = inside(root, folder, file)
        except ValueError as error:
            report.problem(f"image {images.ids[index]}: file_name {error}")
            paths.append(None)
            continue
        paths.append(path)
        first = seen.setdefault(path, index)
        if images.ids[first] != images.ids[index]:
            report.problem(f"{images.name(index)} has two records: image {images.ids[first]} is the same file")
    return paths


def _boxes(entries: list[Any], images: Images, classes: Classes, report: Report) -> tuple[Boxes, np.ndarray]:
    """The annotations whose image and category are there, as the file has them, and the id of each: int64 [M]."""
    rows = _rows(entries, "annotations", _annotation, report)
    table = np.array([row[:4] for row in rows], np.int64).reshape(-1, 4)
    ids, image_ids, category_ids, crowd = table.T
    repeated = np.argsort(ids, kind="stable")[_repeated(np.sort(ids))]
    report.problems(repeated, lambda m: f"annotation {ids[m]}: this id occurs more than once")
    pictured, listed = np.isin(image_ids, images.ids), np.isin(category_ids, classes.known)
    report.problems(
        np.flatnonzero(~pictured),
        lambda m: f"annotation {ids[m]}: image_id {image_ids[m]} is not in the list `images`",
    )
    report.problems(
        np.flatnonzero(~listed),
        lambda m: (
            f"annotation {ids[m]}: category_id {category_ids[m]} is not in the list `categories` "
            f"({name_list(map(str, classes.known))})"
        ),
    )
    wanted = np.isin(category_ids, classes.ids)
    report.repaired(
        np.flatnonzero(listed & ~wanted),
        lambda m: f"annotation {ids[m]}",
        "annotation of a category that is not in `classes` was left out",
        "annotations of categories that are not in `classes` were left out",
    )
    keep = np.flatnonzero(wanted & pictured)
    order = np.argsort(classes.ids)
    corners = np.array([rows[m][4] for m in keep], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    boxes = Boxes(
        np.searchsorted(images.ids, image_ids[keep]),
        corners,
        order[np.searchsorted(classes.ids, category_ids[keep], sorter=order)],
        crowd[keep] != 0,
        np.array([rows[m][5] for m in keep], np.float64),
    )
    return boxes, ids[keep]


def _annotation(entry: Mapping[str, Any]) -> tuple[int, int, int, int, list[float], float]:
    """Id, image, category and crowd as whole numbers, the box as written, and the area (NaN: not given)."""
    box = entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        raise ValueError(f"`bbox` is {box!r}; expected 4 numbers")
    area = entry.get("area")
    if area is not None and not (type(area) in (int, float) and math.isfinite(area)):
        raise ValueError(f"`area` is {area!r}; expected a number")
    crowd = int(bool(entry.get("iscrowd")))
    numbers = (_whole(entry, "id"), _whole(entry, "image_id"), _whole(entry, "category_id"))
    return *numbers, crowd, [float(value) for value in box], math.nan if area is None else float(area)


def _rows(entries: list[Any], key: str, convert: Callable[[Any], tuple[Any, ...]], report: Report) -> list[Any]:
    """`convert` of each entry of the list `key`; an entry that it cannot take is a problem."""
    rows = []
    for place, entry in enumerate(entries):
        try:
            rows.append(convert(entry))
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            what = f"has no `{error.args[0]}`" if isinstance(error, KeyError) else str(error)
            number = entry.get("id") if isinstance(entry, dict) else None
            report.problem(f"{key}[{place}]{'' if number is None else f' (id {number})'}: {what}")
    return rows


def _whole(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if type(value) is not int or abs(value) >= 2**63:
        raise ValueError(f"`{key}` is {value!r}; expected a whole number")
    return value


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{key}` is {value!r}; expected a text")
    return value


def _repeated(ordered: Any) -> np.ndarray:
    """The places in a sorted sequence whose value is that of the place before."""
    values = np.asarray(ordered, np.int64)
    return np.flatnonzero(values[1:] == values[:-1]) + 1
