"""The `voc` dataset: an XML file an image, in the format of PASCAL VOC (Everingham et al. 2010).

A set (``ImageSets/Main/train.txt``) lists its images, one a line; ``Annotations/<image>.xml`` has the objects of each.
An object's box is ``xmin ymin xmax ymax``. In VOC the upper left pixel is (1, 1) and the box includes its last row and
column, so that it becomes xmin - 1, ymin - 1, xmax, ymax here (option `one_based`). A box whose xmax is its xmin, or
whose ymax is its ymin, counts as one without area all the same: labelling programs write it for a click without a
drag. The elements ``folder`` and ``path``, which tell where the images were on the machine of whoever labelled them,
are not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ftengine.errors import unknown
from ftengine.images import find_images
from ftengine.protocols import DatasetContext
from ftengine_datasets.annotation_options import VocOptions
from ftengine_datasets.boxes import BoxDataset, Boxes, mend, real_sizes
from ftengine_datasets.paths import data_root, inside, locate, read_text, require
from ftengine_datasets.report import Report


def voc(options: VocOptions, context: DatasetContext) -> BoxDataset:
    """The split that `context` names, in the order of its set.

    Raises DataError for a missing set or folder, and, with all cases, for an image without annotation file and the
    other way round, a malformed file (with its line), an object that lacks something, a class that is not in
    `classes`, and what :func:`~ftengine_datasets.boxes.mend` cannot repair. Objects are counted from 1.
    """
    split = context.split
    table = _set_file(options, getattr(options, split))
    annotations, folder = locate(options.root, options.annotations), locate(options.root, options.images)
    require(table, split, folder=False)
    require(annotations, f"{split}: annotations", folder=True)
    require(folder, f"{split}: images", folder=True)
    report = Report(split, table)
    files = _annotation_files(table, annotations, data_root(options.root, annotations), report)
    records = [record for file in files if (record := _read(file, annotations, report)) is not None]

    root = data_root(options.root, folder)
    paths = _image_paths(records, folder, root, report)
    stated = np.array([record.stated for record in records], np.int64).reshape(-1, 2)
    unreadable: dict[int, str] | None = {} if context.tolerant else None
    verify = options.verify
    sizes = real_sizes(paths, stated, lambda i: records[i].name, report, verify=verify, unreadable=unreadable)
    objects = _objects(records, options.difficult, split, report)
    classes = options.classes or tuple(sorted({item.label for _, item in objects}))
    if records and not classes:
        report.problem("none of its images has an object; if that is meant, `classes` must name what there may be")
    raw, objects = _boxes(objects, records, classes, options, report)
    boxes = mend(raw, sizes, lambda m: f"{records[objects[m][0]].name} object {objects[m][1].number}", report)
    report.check()
    relative = [path.relative_to(root).as_posix() for path in paths if path is not None]
    return BoxDataset(root, relative, sizes, boxes, classes, notes=report.notes, unreadable=unreadable or {})


@dataclass(frozen=True)
class Object:
    """An object as its file has it; `number`: its place there, from 1."""

    number: int
    label: str
    box: list[float]
    difficult: bool


Objects = list[tuple[int, Object]]
"""Objects, each with the place of its record."""


@dataclass
class Record:
    """An annotation file: its `name` for messages, `stem`, and what it states; the size is 0 where it does not."""

    name: str
    stem: str
    filename: str
    stated: tuple[int, int]
    objects: list[Object] = field(default_factory=list)


def _set_file(options: VocOptions, name: str) -> Path:
    """The file of a set, by its name or its path."""
    if name.endswith(".txt") or "/" in name:
        return locate(options.root, Path(name))
    return locate(options.root, options.sets / f"{name}.txt")


def _annotation_files(table: Path, folder: Path, root: Path, report: Report) -> list[Path]:
    """The annotation file of each image that the set lists."""
    lines: dict[str, int] = {}
    files, again = [], []
    for number, line in enumerate(read_text(table).splitlines(), 1):
        stem = line.strip()
        if not stem:
            continue
        if lines.setdefault(stem, number) != number:
            again.append(number)
            continue
        try:
            path = inside(root, folder, f"{stem}.xml")
        except ValueError as error:
            report.problem(f"{table.name}:{number}: {error}")
            continue
        if path.is_file():
            files.append(path)
        else:
            report.problem(f"{table.name}:{number}: no annotation file {path}")
    name = table.name
    report.repaired(again, lambda n: f"{name}:{n}", "repeated line was left out", "repeated lines were left out")
    if not lines:
        report.problem("it lists no images")
    return files


def _read(path: Path, folder: Path, report: Report) -> Record | None:
    """The annotation file `path`, or None where it cannot be read."""
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    try:
        top = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        line, column = error.position
        report.problem(f"{relative}:{line}: no XML at column {column + 1}: {error.msg.split(':')[0]}")
        return None
    except (OSError, ValueError, LookupError) as error:
        report.problem(f"{relative}: cannot be read: {error}")
        return None
    record = Record(relative.as_posix(), relative.with_suffix("").as_posix(), _text(top, "filename"), (0, 0))
    try:
        record.stated = (_pixels(top, "size/height"), _pixels(top, "size/width"))
    except ValueError as error:
        report.problem(f"{record.name}: {error}")
    for number, element in enumerate(top.findall("object"), 1):
        try:
            record.objects.append(_object(element, number))
        except ValueError as error:
            report.problem(f"{record.name} object {number}: {error}")
    return record


def _object(element: ElementTree.Element, number: int) -> Object:
    label = _text(element, "name")
    if not label:
        raise ValueError("has no name")
    box = [_number(element, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    return Object(number, label, box, _text(element, "difficult") not in ("", "0"))


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: ElementTree.Element, path: str) -> float:
    text = _text(element, path)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{path} is {text!r}; expected a number" if text else f"has no {path}") from None


def _pixels(element: ElementTree.Element, path: str) -> int:
    """A number of pixels; 0 where there is none."""
    number = _number(element, path) if _text(element, path) else 0.0
    if not 0 <= number < 2**31 or number != int(number):
        raise ValueError(f"{path} is {_text(element, path)}; expected a number of pixels")
    return int(number)


def _image_paths(records: list[Record], folder: Path, root: Path, report: Report) -> list[Path | None]:
    """The image of each record: the one that is called as its file is, or else the one that it names."""
    by_stem: dict[str, list[Path]] = {}
    for image in find_images(folder):
        by_stem.setdefault(image.relative_to(folder).with_suffix("").as_posix(), []).append(image)
    owners: dict[Path, Record] = {}
    paths: list[Path | None] = []
    for record in records:
        try:
            path = _image_path(record, by_stem.get(record.stem, []), folder, root)
        except ValueError as error:
            report.problem(f"{record.name}: {error}")
            path = None
        if path is not None and owners.setdefault(path, record) is not record:
            report.problem(f"image {path.name} has two records: {owners[path].name} and {record.name}")
        paths.append(path)
    return paths


def _image_path(record: Record, found: list[Path], folder: Path, root: Path) -> Path:
    named = inside(root, folder, record.filename) if record.filename else None
    if named in found:
        return named
    if named is not None and named.is_file():
        if found:
            raise ValueError(f"names image {record.filename}, but {found[0].name} is there too")
        return named
    if len(found) > 1:
        raise ValueError(f"there are several images for it: {', '.join(image.name for image in found)}")
    if not found:
        other = record.filename if record.filename != f"{record.stem}.jpg" else ""
        hint = f" nor {other}, which it names" if other else ""
        raise ValueError(f"its image is missing: {folder} has no {record.stem}.jpg (or of another format){hint}")
    return found[0]


def _objects(records: list[Record], difficult: str, split: str, report: Report) -> Objects:
    """The objects to keep, in order, each with the place of its record; a note on those that are difficult."""
    objects = [(place, item) for place, record in enumerate(records) for item in record.objects]
    marked = sum(item.difficult for _, item in objects)
    done = {"drop": "left out", "ignore": "neither learnt nor measured", "keep": "taken as any other"}[difficult]
    if marked:
        what = "object marked as difficult is" if marked == 1 else "objects marked as difficult are"
        report.notes.append(f"{split}: {marked} {what} {done}")
    return [pair for pair in objects if not (pair[1].difficult and difficult == "drop")]


def _boxes(
    objects: Objects, records: list[Record], classes: tuple[str, ...], options: VocOptions, report: Report
) -> tuple[Boxes, Objects]:
    """The objects of `classes` as boxes, and which objects these are; one of another class is a problem."""
    index = {name: place for place, name in enumerate(classes)}
    for place, item in objects:
        if item.label not in index:
            report.problem(f"{records[place].name} object {item.number}: {unknown('class', item.label, classes)}")
    known = [(place, item) for place, item in objects if item.label in index]
    corners = np.array([item.box for _, item in known], np.float64).reshape(-1, 4)
    # Judged by what the file says: as VOC counts, a box from 5 to 5 would be one pixel wide.
    none = ((corners[:, 2:] <= corners[:, :2]).any(1))[:, None]
    if options.one_based:
        corners = np.where(none, corners, corners - [1, 1, 0, 0])
    boxes = Boxes(
        np.array([place for place, _ in known], np.int64),
        corners,
        np.array([index[item.label] for _, item in known], np.int64),
        np.array([item.difficult and options.difficult == "ignore" for _, item in known], bool),
        np.full(len(known), np.nan),
    )
    return boxes, known
