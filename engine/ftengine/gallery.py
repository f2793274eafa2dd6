"""Pictures of the first validation images, truth beside prediction, written at each evaluation.

``<run>/pictures/step-00000120/<task>/03-<sample>.png``. The engine's evaluation makes a page of them::

    page = Gallery(run_directory, count=8, warn=tracker.warn).page(step)
    ...
    page.show("detection", task, split.data, split.encoders["detection"], indices, predictions)   # each batch

Nothing is drawn of tasks that have no :meth:`ftengine.protocols.Task.draw`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ftengine.files import write_picture
from ftengine.pictures import beside
from ftengine.protocols import Dataset, Encoder, Prediction, Task

LARGEST = 2048
"""Longer side of a picture, at most, in pixels: they are for looking at, and there are many."""


@dataclass
class Gallery:
    """`directory` is the run's, `count` how many images of a split are shown. `warn` is told, once, what fails."""

    directory: Path
    count: int
    warn: Callable[[str], None]
    _failed: bool = field(default=False, init=False)

    def page(self, step: int) -> Page:
        """What is shown after `step` steps."""
        return Page(self, self.directory / "pictures" / f"step-{step:08d}")

    def failed(self, error: Exception) -> None:
        """Pictures are not worth a run: it goes on, and a later one may be drawn."""
        if not self._failed:
            self._failed = True
            self.warn(f"a picture could not be made: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Page:
    """The pictures of one evaluation, in `folder`."""

    gallery: Gallery
    folder: Path

    def show(
        self,
        name: str,
        task: Task,
        data: Dataset,
        encoder: Encoder,
        indices: Sequence[int],
        predictions: Sequence[Prediction],
    ) -> None:
        """Draws what is shown of one batch: `predictions` are those for the samples `indices` of `data`.

        `name` is the task's in the run. `encoder` is the task's for `data`.
        """
        if type(task).draw is Task.draw:
            return
        for index, prediction in zip(indices, predictions, strict=True):
            if index >= self.gallery.count:
                continue
            try:
                picture = draw(task, data, encoder, index, prediction)
                if picture is not None:
                    digits = max(2, len(str(self.gallery.count - 1)))
                    file = f"{index:0{digits}d}-{safe(data.sample_id(index))}.png"
                    write_picture(self.folder / safe(name) / file, picture)
            except Exception as error:
                self.gallery.failed(error)


def draw(task: Task, data: Dataset, encoder: Encoder, index: int, prediction: Prediction) -> np.ndarray | None:
    """Truth and prediction of sample `index` side by side, uint8 [H, W, 3]; None where the task draws nothing."""
    sample = data[index]
    image = sample.image if sample.image.ndim == 3 else sample.image[len(sample.image) // 2]  # a clip's middle frame
    truth = task.draw(image, task.perfect(encoder(sample.target)))
    predicted = task.draw(image, prediction)
    if truth is None or predicted is None:
        return None
    picture = beside({"truth": truth, "prediction": predicted})
    factor = LARGEST / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))


def safe(name: str) -> str:
    """`name` as part of a file's name, on any system: of a path, its last part without the suffix."""
    stem = re.split(r"[/\\]", name)[-1]
    stem = re.sub(r"\.(bmp|gif|jpe?g|png|tiff?|webp)$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"[^\w-]+", "_", stem).strip("_")[:80] or "sample"
