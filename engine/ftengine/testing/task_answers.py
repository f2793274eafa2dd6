"""Checks of tasks: what they make of predictions."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
from torch import Tensor

from ftengine.errors import name_list
from ftengine.protocols import Prediction, Task
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.material import Material, material, new_task
from ftengine.testing.same import difference, kind
from ftengine.testing.subject import Subject


@check("task")
def task_rows(subject: Subject) -> None:
    """describe() gives a flat row of text and numbers, records() None or rows that can be written as JSON."""
    found = material(subject)
    loaded = new_task(subject)
    loaded.load_state(found.task.state())
    for prediction in _all_predictions(found):
        before = copy.deepcopy(prediction)
        row: Any = found.task.describe(prediction)
        if not isinstance(row, dict):
            raise Nonconformity("a dict from describe()", kind(row))
        for name, value in row.items():
            if not isinstance(name, str) or not isinstance(value, str | int | float):
                raise Nonconformity(
                    "text or Python's own numbers by name from describe()", f"{kind(value)} for {name!r}"
                )
        records: Any = found.task.records(prediction, 1)
        if records is not None:
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                raise Nonconformity("a list of dicts, or None, from records()", kind(records))
            try:
                json.dumps(records)
            except (TypeError, ValueError) as error:
                raise Nonconformity("records() that can be written as JSON", str(error)) from None
        changed = difference(before, prediction)
        if changed is not None:
            raise Nonconformity("that describe() and records() leave a prediction as it is", changed)
        changed = difference([row, records], [loaded.describe(prediction), loaded.records(prediction, 1)])
        if changed is not None:
            raise Nonconformity("the same rows from a task that has its state from load_state()", f"item {changed}")


@check("task")
def task_index_map(subject: Subject) -> None:
    """index_map() gives None, or a picture of class ids, uint8 [H, W], of the original image's size."""
    found = material(subject)
    if type(found.task).index_map is Task.index_map:
        raise NotApplicable("its predictions are no pictures of class ids")
    for place, prediction in enumerate(copy.deepcopy(found.model)):
        classes: Any = found.task.index_map(prediction)
        size = found.items[place].frame.original
        fits = isinstance(classes, np.ndarray) and classes.dtype == np.uint8 and classes.shape == size
        if classes is not None and not fits:
            raise Nonconformity(f"array uint8 {list(size)} or None from index_map()", kind(classes))
        changed = difference(found.model[place], prediction)
        if changed is not None:
            raise Nonconformity("that index_map() leaves a prediction as it is", changed)


@check("task")
def task_pictures(subject: Subject) -> None:
    """draw() gives a new picture, or None, of predictions and of what `perfect` says of the targets."""
    found = material(subject)
    if type(found.task).draw is Task.draw:
        raise NotApplicable("it draws nothing")
    if found.perfect is None:
        raise Nonconformity("a method `perfect`, whose predictions are drawn beside the model's", "`draw` alone")
    for place, prediction in enumerate(_all_predictions(found)):
        image = found.split.data.image(found.items[place % len(found.items)].index)
        image = image if image.ndim == 3 else image[len(image) // 2]  # of a clip a frame is drawn on
        kept = image.copy()
        before = copy.deepcopy(prediction)
        picture: Any = found.task.draw(image, prediction)
        changed = difference([kept, before], [image, prediction])
        if changed is not None:
            raise Nonconformity("that draw() leaves the image and the prediction as they are", f"item {changed}")
        if picture is None:
            continue
        fits = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
        if not fits or picture.ndim != 3 or picture.shape[2] != 3:
            raise Nonconformity("array uint8 [height, width, 3] or None from draw()", kind(picture))
        if np.shares_memory(picture, image):
            raise Nonconformity("a new picture from draw()", "the image's own memory")


@check("task")
def task_perfect(subject: Subject) -> None:
    """perfect() gives tensors that the model's predictions have as well, and leaves the encoded target as it is."""
    found = material(subject)
    if found.perfect is None:
        raise NotApplicable("it has no method `perfect`")
    for place, item in enumerate(found.items):
        encoded = copy.deepcopy(item.truths[found.plan.name])
        before = copy.deepcopy(encoded)
        prediction: Any = found.task.perfect(encoded)
        changed = difference(before, encoded)
        if changed is not None:
            raise Nonconformity("that perfect() leaves an encoded target as it is", changed)
        if not isinstance(prediction, dict) or not prediction or not set(prediction) <= set(found.model[place]):
            given = name_list(prediction) if isinstance(prediction, dict) else kind(prediction)
            raise Nonconformity(
                f"from perfect() some of what the model predicts: {name_list(found.model[place])}", given
            )
        for name, value in prediction.items():
            like = found.model[place][name]
            if not isinstance(value, Tensor) or (value.dtype, value.ndim) != (like.dtype, like.ndim):
                raise Nonconformity(
                    f"as {name!r} of a perfect prediction a tensor like the model's, {kind(like)}", kind(value)
                )


def _all_predictions(found: Material) -> list[Prediction]:
    """The model's, and those that are perfect if there are any, of all samples in order."""
    return copy.deepcopy([*found.model, *(found.perfect or [])])
