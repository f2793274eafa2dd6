"""What `ftengine predict` writes: rows, COCO results, index maps and pictures.

::

    with PredictionFiles(tasks, files, output, pictures=pictures, joint=plan.joint) as written:
        for index, predictions in stream:       # predictions: task name -> that image's
            written.add(index, predictions)
    print(as_csv(written.rows) if output is None else "\\n".join(written.summary))

One image at a time is in memory, besides the rows. Each file appears under its name only when it is whole.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ftengine.errors import DataError, name_list
from ftengine.files import json_list, write_index_map, write_picture, write_text
from ftengine.images import read_image
from ftengine.protocols import Prediction, Task

Form = Literal["print", "csv", "json", "folder"]


def form_of(output: Path | None) -> Form:
    """How predictions are written to `output`: by its suffix; a folder has none, or is there already.

    Raises DataError for another suffix.
    """
    if output is None:
        return "print"
    if output.is_dir() or not output.suffix:
        if output.exists() and not output.is_dir():
            raise DataError(f"--output {output}: a name without a suffix is a folder's, and this is a file")
        return "folder"
    if output.suffix == ".csv":
        return "csv"
    if output.suffix == ".json":
        return "json"
    raise DataError(f"--output {output}: expected a name that ends in .csv or .json, or a folder's, without a suffix")


class PredictionFiles:
    """Writes predictions as they come; a context, at the end of which all is written.

    `output` is a file of rows (``.csv``, ``.json``) or a folder; see `form_of`. In ``.json`` a run's only task, if it
    has ``records``, writes these instead of rows. A folder gets ``predictions.csv`` and for each task ``<task>.json``,
    its records, and ``<task>/<image>.png``, its index maps, where it has them.

    `pictures` is a folder for what the tasks draw. `annotations` is a COCO file with the images' ids, see `image_ids`.
    Raises DataError before the first prediction where they do not fit.

    After the context: `rows`, a row an image, and `summary`, a sentence for each file or folder that was written.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        files: Sequence[Path],
        output: Path | None,
        *,
        pictures: Path | None = None,
        annotations: Path | None = None,
        joint: bool = False,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self.summary: list[str] = []
        self._tasks = tasks
        self._files = files
        self._output = output
        self._form = form_of(output)
        self._pictures = pictures
        self._joint = joint
        self._places = distinct_names(files)
        self._ids = image_ids(files, annotations)
        self._lists: dict[str, Callable[[Iterable[Mapping[str, Any]]], None]] = {}
        self._counts: Counter[tuple[Path, str]] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> PredictionFiles:
        for name, task in self._tasks.items():
            if type(task).records is not Task.records and (path := self._record_file(name)) is not None:
                self._lists[name] = self._stack.enter_context(json_list(path))
                self._counts[path, "result"] = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        if kind is None:
            self._finish()

    def add(self, index: int, predictions: Mapping[str, Prediction]) -> None:
        """The predictions for image `index`, by task."""
        row: dict[str, Any] = {"image": str(self._files[index])}
        for name, prediction in predictions.items():
            task = self._tasks[name]
            prefix = f"{name}/" if self._joint else ""
            row |= {prefix + key: value for key, value in task.describe(prediction).items()}
            self._add_records(name, index, prediction)
            if self._form == "folder":
                self._add_index_map(name, index, prediction)
        if self._pictures is not None:
            self._add_pictures(self._pictures, index, predictions)
        self.rows.append(row)

    def _record_file(self, name: str) -> Path | None:
        """Where the records of task `name` go, if they are written."""
        if self._output is None or self._form == "csv":
            return None
        if self._form == "json":
            return self._output if len(self._tasks) == 1 else None
        return self._output / f"{name}.json"

    def _add_records(self, name: str, index: int, prediction: Prediction) -> None:
        path = self._record_file(name)
        if name in self._lists and path is not None:
            records = self._tasks[name].records(prediction, self._ids[index]) or []
            self._lists[name]({**record, "file_name": self._file_name(index)} for record in records)
            self._counts[path, "result"] += len(records)

    def _file_name(self, index: int) -> str:
        """The image's path, from the folder that all have in common."""
        return self._places[index].with_name(self._files[index].name).as_posix()

    def _add_index_map(self, name: str, index: int, prediction: Prediction) -> None:
        classes = self._tasks[name].index_map(prediction)
        if classes is not None and self._output is not None:
            write_index_map(self._output / name / self._places[index], classes)
            self._counts[self._output / name, "index map"] += 1

    def _add_pictures(self, folder: Path, index: int, predictions: Mapping[str, Prediction]) -> None:
        drawing = {name: self._tasks[name] for name in predictions if type(self._tasks[name]).draw is not Task.draw}
        image = read_image(self._files[index]) if drawing else None
        for name, task in drawing.items():
            picture = None if image is None else task.draw(image, predictions[name])
            if picture is not None:
                place = folder / name if self._joint else folder
                write_picture(place / self._places[index], picture)
                self._counts[place, "picture"] += 1

    def _finish(self) -> None:
        if self._output is not None and (self._form != "json" or not self._lists):
            table = self._output / "predictions.csv" if self._form == "folder" else self._output
            write_text(table, as_json(self.rows) if self._form == "json" else as_csv(self.rows))
            self._counts[table, "prediction"] += len(self.rows)
        for (path, what), count in self._counts.items():
            self.summary.append(f"{count} {what}{'' if count == 1 else 's'} written to {path}")
        if self._pictures is not None and all(type(task).draw is Task.draw for task in self._tasks.values()):
            self.summary.append(f"no pictures: nothing to draw for {name_list(self._tasks)}")


def distinct_names(files: Sequence[Path]) -> list[Path]:
    """A PNG's relative path for each image: its own below the folder that all have in common, no two alike.

    The suffix is replaced; images of the same name and folder keep theirs before the new one (``a.jpg.png``).
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    relative = [path.relative_to(root) for path in paths]
    stems = Counter(str(path.with_suffix("")).casefold() for path in relative)
    names = []
    for path in relative:
        alone = stems[str(path.with_suffix("")).casefold()] == 1
        names.append(path.with_suffix(".png") if alone else path.with_name(path.name + ".png"))
    return names


def image_ids(files: Sequence[Path], annotations: Path | None) -> list[int]:
    """The number of each image in result files.

    Those that `annotations`, a COCO file, gives their file names; else the numbers that the files are called by
    (``000000000139.jpg``), if all are, and differ; else 1, 2, … in order. Raises DataError for an image that
    `annotations` does not list, and for two that are the same one there.
    """
    if annotations is not None:
        known = _listed(annotations)
        found = {file: _match(file, known) for file in files}
        missing = [str(file) for file, number in found.items() if number is None]
        if missing:
            raise DataError(f"{annotations} lists no image of the name: {name_list(missing)}")
        times = Counter(found.values())
        twice = [str(file) for file, number in found.items() if times[number] > 1]
        if twice:
            raise DataError(f"{annotations} has one image for several files: {name_list(twice)}")
        return [number for number in found.values() if number is not None]
    stems = [file.stem for file in files]
    if all(stem.isascii() and stem.isdigit() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return list(map(int, stems))
    return list(range(1, len(files) + 1))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; a column for every key that any row has.

    Of a file name that is not UTF-8, the bytes that are not stand by their numbers, as JSON has them: \\udcff.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="backslashreplace").decode()


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a JSON list."""
    return json.dumps(list(rows), indent=1) + "\n"


def _listed(annotations: Path) -> dict[str, int]:
    """The ids of the images of a COCO file, by file name."""
    try:
        images = json.loads(annotations.read_text(encoding="utf-8"))["images"]
        return {str(image["file_name"]).replace("\\", "/"): int(image["id"]) for image in images}
    except OSError as error:
        raise DataError(f"cannot read {annotations}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{annotations}: expected a COCO file: `images`, each with `id` and `file_name`") from error


def _match(file: Path, known: Mapping[str, int]) -> int | None:
    """The number of the name in `known` that `file` ends in; of several, of the longest."""
    parts = Path(os.path.abspath(file)).parts
    names = ("/".join(parts[start:]) for start in range(1, len(parts)))
    return next((known[name] for name in names if name in known), None)
