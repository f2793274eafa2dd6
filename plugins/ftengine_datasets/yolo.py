"""The `yolo` dataset: a text file an image, in the format of YOLO as Ultralytics' programs write it.

``data.yaml`` has the class `names` (a list, or a mapping from numbers), a folder of images for each split (or several,
or a text file with one image a line), and optionally `path`, the folder that these start from; without it, that is the
file's own. The labels of ``images/train/1.jpg`` are in ``labels/train/1.txt``: in its path, the last folder called
``images`` is called ``labels``; where there is none, both files are beside each other. A line is ``class cx cy w h``,
the box's centre and size as fractions of the image's width and height, or ``class x1 y1 x2 y2 x3 y3 …``, an outline,
which is taken as the box around it. An image whose label file is empty or missing has no objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ftengine.errors import DataError, name_list
from ftengine.images import find_images, is_hidden
from ftengine.protocols import DatasetContext
from ftengine_datasets.annotation_options import YoloOptions
from ftengine_datasets.boxes import BoxDataset, mend, real_sizes
from ftengine_datasets.paths import data_root, inside, locate, read_text, require
from ftengine_datasets.report import Report
from ftengine_datasets.yolo_labels import Lines


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases (``*name``): nine lines with them can stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "it has an alias (*name); write the value out", mark)
        return super().compose_node(parent, index)


def yolo(options: YoloOptions, context: DatasetContext) -> BoxDataset:
    """The split that `context` names; the images of a folder are sorted by path, those of a list keep its order.

    Raises DataError for a missing or malformed data file or folder, and, with all cases, for a malformed line, a class
    that is not in `names`, labels without an image, an image that cannot be read, no label file for any image, and
    what :func:`~ftengine_datasets.boxes.mend` cannot repair.
    """
    file = locate(options.root, options.file)
    require(file, context.split, folder=False)
    root = data_root(options.root, file.parent)
    report = Report(context.split, file)
    content = _parse(file, context.split)
    names = _names(content, report)
    images = Images(root, report)
    for source in _sources(content, getattr(options, context.split), file, root, context.split, report):
        images.add(source, context.split)
    labels = images.labels()
    report.check()

    unstated = np.zeros((len(images.paths), 2), np.int64)
    unreadable: dict[int, str] | None = {} if context.tolerant else None
    sizes = real_sizes(images.paths, unstated, images.name, report, verify=True, unreadable=unreadable)
    lines = Lines({number: place for place, number in enumerate(names)})
    for index, path in enumerate(labels):
        if path is not None:
            lines.read(path, index, path.relative_to(root).as_posix(), report)
    report.repaired(
        np.flatnonzero(lines.outlines),
        lines.name,
        "outline was taken as the box around it",
        "outlines were taken as the boxes around them",
    )
    boxes = mend(lines.boxes(sizes), sizes, lines.name, report)
    report.check()
    files = [images.name(index) for index in range(len(images.paths))]
    return BoxDataset(
        root,
        files,
        sizes,
        boxes,
        tuple(names.values()),
        ids=tuple(names),
        notes=report.notes,
        unreadable=unreadable or {},
    )


def _parse(file: Path, split: str) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(f"{split}: {file}{line} is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{split}: {file} is not YAML text: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{split}: {file} holds no mapping; expected `names`, `train` and `val`")
    return content


def _names(content: dict[str, Any], report: Report) -> dict[int, str]:
    """Number -> class name, by ascending number."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(key) is int and key >= 0 for key in names):
        report.problem("`names` must be a list of the class names, or a mapping from their numbers, which count from 0")
        return {}
    for number, name in names.items():
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            report.problem(f"`names`: class {number} is called {name!r}; write it in quotes")
    result = {number: str(names[number]) for number in sorted(names)}
    if len(set(result.values())) < len(result):
        report.problem("`names` has a name twice")
    if "nc" in content and content["nc"] != len(names):
        report.problem(f"`nc` is {content['nc']!r}, but `names` has {len(names)}")
    return result


def _sources(content: dict[str, Any], wanted: str, file: Path, root: Path, split: str, report: Report) -> list[Path]:
    """The folders or lists of the split `wanted`: a key of the file, or itself a path from the data root."""
    if wanted not in content:
        path = locate(root, Path(wanted))
        if path.exists():
            return [path]
        hint = f"; `{split}: null` holds the split out of `train`" if split == "val" else ""
        raise DataError(f"{split}: {file} has no {wanted!r}, and there is no {path}; it has {name_list(content)}{hint}")
    entries = content[wanted] if isinstance(content[wanted], list) else [content[wanted]]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"{split}: {file}: {wanted!r} is {content[wanted]!r}; expected a path or a list of paths")
    base = file.parent
    try:
        if content.get("path") is not None:
            base = inside(root, root, str(content["path"]))
            require(base, f"{split}: {file}: path", folder=True)
        return [_source(entry, base, root, file, report) for entry in entries]
    except ValueError as error:
        hint = "; `root` in the config may be set to another folder" if content.get("path") is not None else ""
        raise DataError(f"{split}: {file}: {error}{hint}") from error


def _source(entry: str, base: Path, root: Path, file: Path, report: Report) -> Path:
    try:
        return inside(root, base, entry)
    except ValueError:
        # Exported files say ../train/images where train/images is meant; Ultralytics' programs read them so, too.
        own = inside(root, base, entry.removeprefix("../"))
        if own.exists():
            report.notes.append(f"{report.split}: {file.name} says {entry!r}, outside of the data root; {own} was read")
            return own
        raise


class Images:
    """The image files of a split, each with its label file. All paths are inside of `root`."""

    def __init__(self, root: Path, report: Report) -> None:
        self.paths: list[Path] = []
        self._known: set[Path] = set()
        self._root = root
        self._report = report
        self._folders: list[Path] = []

    def name(self, index: int) -> str:
        return self.paths[index].relative_to(self._root).as_posix()

    def add(self, source: Path, split: str) -> None:
        """The images of a folder, or of a list."""
        if source.is_dir():
            self._folders.append(source)
            found = find_images(source)
            if not found:
                self._report.problem(f"{source} holds no images")
        else:
            require(source, split, folder=source.suffix != ".txt")
            found = self._listed(source)
        again: list[Path] = []
        for path in found:
            (again if path in self._known else self.paths).append(path)
            self._known.add(path)
        what = ("image that is listed twice was taken once", "images that are listed twice were taken once")
        self._report.repaired(range(len(again)), lambda i: again[i].name, *what)

    def labels(self) -> list[Path | None]:
        """The label file of each image, None where there is none."""
        wanted = [self._label(path) for path in self.paths]
        owner: dict[Path, int] = {}
        for index, path in enumerate(wanted):
            if owner.setdefault(path, index) != index:
                self._report.problem(f"{self.name(owner[path])} and {self.name(index)} share the labels {path.name}")
        for folder in self._folders:
            self._check_all_used(folder, set(wanted))
        missing = [index for index, path in enumerate(wanted) if not path.is_file()]
        if wanted and len(missing) == len(wanted):
            self._report.problem(f"none of its images has a label file; expected, for instance, {wanted[0]}")
        one, several = "image without label file has no objects", "images without label file have no objects"
        self._report.repaired(missing, self.name, one, several)
        lost = set(missing)
        return [None if index in lost else path for index, path in enumerate(wanted)]

    def _listed(self, file: Path) -> list[Path]:
        """The images that `file` lists, one a line, from its own folder."""
        paths = []
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if line.strip():
                try:
                    paths.append(inside(self._root, file.parent, line.strip()))
                except ValueError as error:
                    self._report.problem(f"{file.name}:{number}: {error}")
        if not paths:
            self._report.problem(f"{file} lists no images")
        return paths

    def _label(self, image: Path) -> Path:
        return _labels_of(image.parent, self._root) / f"{image.stem}.txt"

    def _check_all_used(self, folder: Path, used: set[Path]) -> None:
        """Labels without an image are a problem, where labels have a folder of their own."""
        labels = _labels_of(folder, self._root)
        if labels == folder or not labels.is_dir():
            return
        for path in sorted(labels.rglob("*.txt")):
            if path not in used and path.name != "classes.txt" and not is_hidden(path.name):
                self._report.problem(f"{path.relative_to(self._root).as_posix()}: its image is missing in {folder}")


def _labels_of(folder: Path, root: Path) -> Path:
    """The folder of the labels for the images in `folder`."""
    parts = list(folder.relative_to(root).parts)
    if "images" not in parts:
        return folder
    place = len(parts) - 1 - parts[::-1].index("images")
    return root.joinpath(*parts[:place], "labels", *parts[place + 1 :])
