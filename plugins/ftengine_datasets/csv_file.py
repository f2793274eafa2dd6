"""The `csv` dataset: a table a split, with a column of image paths and columns to learn from."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ftengine.errors import DataError, unknown
from ftengine.images import check_images, read_image
from ftengine.protocols import Dataset, DatasetContext
from ftengine_datasets.options import CsvOptions
from ftengine_datasets.paths import data_root, inside, locate, require

FLOAT32_MAX = float(np.finfo(np.float32).max)


class ImageTable(Dataset):
    """The rows of one split: `files` relative to `images`, and the columns by target field, each in row order."""

    def __init__(
        self,
        images: Path,
        files: list[str],
        names: Mapping[str, tuple[str, ...]],
        fields: Mapping[str, np.ndarray],
        unreadable: Mapping[int, str],
    ) -> None:
        self.names = names
        self.unreadable = unreadable
        self._images = images
        self._files = files
        self._fields = fields

    def __len__(self) -> int:
        return len(self._files)

    def target(self, index: int) -> dict[str, Any]:
        row = {field: column[index] for field, column in self._fields.items()}
        return {field: int(value) if field == "label" else value.copy() for field, value in row.items()}

    def image(self, index: int) -> np.ndarray:
        return read_image(self._images / self._files[index])

    def sample_id(self, index: int) -> str:
        """The image's path as the table has it."""
        return self._files[index]


def csv_file(options: CsvOptions, context: DatasetContext) -> ImageTable:
    """The split that `context` names.

    Raises DataError for a missing file or column, a cell that cannot be used (with file, line and column), such as the
    path of an image outside of the data root, and unreadable images if they are not tolerated.
    """
    path = locate(options.root, getattr(options, context.split))
    require(path, context.split, folder=False)
    table = Table(path, options.delimiter)
    images = path.parent if options.images is None else locate(options.root, options.images)
    if options.images is not None:
        require(images, f"{context.split}: images", folder=True)
    root = data_root(options.root, images)

    def image(cell: str) -> str:
        inside(root, images, _text(cell))
        return cell

    files = table.column(options.image, image)
    label = [] if options.label is None else table.column(options.label, _text)
    tags: list[set[str]] = []
    bits: list[list[float]] = []
    if isinstance(options.labels, str):
        tags = table.column(options.labels, lambda cell: {tag.strip() for tag in cell.split(options.separator)} - {""})
    elif options.labels is not None:
        bits = [table.column(name, _bit) for name in options.labels]
    numbers = [table.column(name, _number) for name in options.target_columns]
    table.check()

    names: dict[str, tuple[str, ...]] = {}
    fields: dict[str, np.ndarray] = {}
    if label:
        names["label"], fields["label"] = _index(label)
    if tags:
        names["labels"], fields["labels"] = _indicators(tags)
    if bits:
        names["labels"], fields["labels"] = tuple(options.labels or ()), np.array(bits, np.float32).T
    if numbers:
        names["values"], fields["values"] = options.target_columns, np.array(numbers, np.float32).T
    unreadable: dict[int, str] = {}
    if options.verify:
        paths = [images / file for file in files]
        unreadable = check_images(paths, f"{context.split}: {path}", tolerant=context.tolerant)
    return ImageTable(images, files, names, fields, unreadable)


class Table:
    """A CSV file as UTF-8 text, with or without byte-order mark; cells are stripped, empty lines are skipped.

    `column` converts cells and notes those that it cannot; `check` then raises, once for all of them.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self.header: list[str] = []
        self.rows: list[tuple[int, list[str]]] = []
        self.problems: list[tuple[int, str]] = []
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ")
                lines = ((reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row))
                self.header = next(lines, (0, []))[1]
                self.rows = list(lines)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text: {error}") from error
        except csv.Error as error:
            raise DataError(f"{path} is not a CSV file: {error}") from error
        if not self.rows:
            raise DataError(f"{path} {'has no rows below its header' if self.header else 'is empty'}")
        for line, row in self.rows:
            if len(row) != len(self.header):
                raise DataError(f"{path}:{line}: {len(row)} cells, but the header has {len(self.header)} columns")

    def column(self, name: str, convert: Callable[[str], Any]) -> list[Any]:
        """Column `name`, each cell converted; a ValueError from `convert` makes the cell a problem."""
        if self.header.count(name) != 1:
            if name in self.header:
                raise DataError(f"{self.path}: more than one column is called {name!r}")
            raise DataError(f"{self.path}: {unknown('column', name, self.header)}; its header: {self._header()}")
        place = self.header.index(name)
        values = []
        for line, row in self.rows:
            try:
                values.append(convert(row[place]))
            except ValueError as error:
                self.problems.append((line, f"column {name!r}: {error}"))
        return values

    def check(self) -> None:
        """Raises DataError for the first problem, with the count of the others."""
        if self.problems:
            line, message = min(self.problems)
            count = len(self.problems) - 1
            others = f" (and {count} other cell{'s' if count > 1 else ''})" if count else ""
            raise DataError(f"{self.path}:{line}: {message}{others}")

    def _header(self) -> str:
        """The column names in the file's order; says so where they look like the wrong delimiter."""
        if len(self.header) == 1:
            other = next((mark for mark in ";\t|," if mark in self.header[0]), None)
            if other is not None:
                return f"{self.header[0]!r} (is the delimiter {other!r}?)"
        return ", ".join(self.header)


def _text(cell: str) -> str:
    if not cell:
        raise ValueError("is empty")
    return cell


def _number(cell: str) -> float:
    try:
        number = float(_text(cell))
    except ValueError:
        raise ValueError("is empty; expected a number" if not cell else f"{cell!r} is not a number") from None
    if not abs(number) <= FLOAT32_MAX:
        raise ValueError(f"{cell!r} is not a finite float32 number")
    return number


def _bit(cell: str) -> float:
    if cell.lower() in ("1", "1.0", "true"):
        return 1.0
    if cell.lower() in ("0", "0.0", "false"):
        return 0.0
    raise ValueError("is empty; expected 0 or 1" if not cell else f"{cell!r} is not 0 or 1")


def _index(labels: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct labels, sorted, and each one's index: int64 [rows]."""
    names, index = np.unique(np.array(labels, dtype=object), return_inverse=True)
    return tuple(names), index


def _indicators(tags: list[set[str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct tags, sorted, and which of them each row has: float32 [rows, tags]."""
    names = tuple(sorted(set().union(*tags)))
    return names, np.array([[name in row for name in names] for row in tags], dtype=np.float32)
