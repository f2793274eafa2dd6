"""Checks of what heads predict: its form, the coordinates it is in, and how windows of an image are put together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ftengine.protocols import Batch, Frame, Prediction, Window
from ftengine.testing.bench import Bench, bench
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.heads import predicted
from ftengine.testing.same import difference, kind
from ftengine.testing.subject import Subject
from ftengine.vocabulary import SPATIAL_FIELDS
from ftengine.windows import Sliding

PIXELS = 1e-3
"""How far a place may be off, in pixels: what the roundings of one multiplication and one addition come to."""

ROUNDING = 1e-5
"""Likewise for values that are no places."""


@check("head")
def head_predictions(subject: Subject) -> None:
    """predict() gives a dict of finite tensors on the CPU for each image."""
    found = bench(subject)
    made: Any = predicted(found, found.sure_head(), found.batch, found.features)
    if not isinstance(made, list) or len(made) != len(found.batch):
        what = f"{len(made)} of them" if isinstance(made, list) else kind(made)
        raise Nonconformity(f"a list with a prediction for each of {len(found.batch)} images", what)
    for index, prediction in enumerate(made):
        if not isinstance(prediction, dict) or not prediction:
            raise Nonconformity("a dict of tensors for each image", f"{kind(prediction)} for image {index}")
        for name, value in prediction.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise Nonconformity("a dict of tensors for each image", f"{kind(value)} for {name!r} of image {index}")
            if value.device.type != "cpu":
                raise Nonconformity("predictions on the CPU", f"{name!r} on {value.device}")
            if value.requires_grad:
                raise Nonconformity("predictions without gradients", f"{name!r} with one")
            if not bool(value.isfinite().all()):
                raise Nonconformity("finite predictions", f"{name!r} of image {index} with values that are not")


@check("head")
def head_rows(subject: Subject) -> None:
    """The task's describe() and records() take the head's predictions, and give rows that can be written as JSON."""
    found = bench(subject)
    for index, prediction in enumerate(predicted(found, found.sure_head(), found.batch, found.features)):
        for method, argument in (("describe", (prediction,)), ("records", (prediction, 1))):
            try:
                rows = getattr(found.task, method)(*argument)
                json.dumps(rows, allow_nan=False)
            except Exception as error:
                raise Nonconformity(
                    f"a prediction that {method}() of the task {found.plan.task.component.name} can write",
                    f"{type(error).__name__}: {error} (image {index}: {_form(prediction)})",
                ) from error


@check("head")
def head_coordinates(subject: Subject) -> None:
    """predict() gives boxes and masks in the pixels of the original image, and what is no place as it is."""
    found = bench(subject)
    head = found.sure_head()
    with torch.no_grad():
        output = found.forward(head, found.batch)
    height, width = found.size
    plain = head.predict(output, found.whole())
    _must_have_places(found, plain)
    larger = Frame((2 * height, 3 * width), (height, width), (0.0, 0.0, float(height), float(width)))
    shifted = _shifted(found, plain)
    for frame, what in ((larger, "twice as high and three times as wide as the batch"), shifted):
        batch = replace(found.whole(), frames=[frame] * len(found.batch))
        for index, (before, after) in enumerate(zip(plain, head.predict(output, batch), strict=True)):
            if set(before) != set(after):
                raise Nonconformity("predictions of the same names, whatever the original", _form(after))
            for name in before:
                fault = _misplaced(found, name, before[name], after[name], frame)
                if fault is not None:
                    raise Nonconformity(f"{name!r} that is right for an original {what}", f"image {index}: {fault}")
            if found.plan.field in SPATIAL_FIELDS and difference(before, after) is None and _places(before):
                raise Nonconformity(f"places in an original {what}", f"image {index}: the same as in the batch")


@check("head")
def head_windows(subject: Subject) -> None:
    """A head that merges windows gives for the whole what the only window over a pixel gives there."""
    found = bench(subject)
    if not found.plan.head.spec.windows:
        raise NotApplicable("its spec says windows=False")
    head, (height, width) = found.head(), found.size
    images = torch.cat([found.batch.images, found.batch.images.flip(-1)], dim=-1)
    for size in ((height, width), (height, 2 * width)):
        windows = Sliding((height, width), 1 / 3).windows(size)
        parts = [_of_window(found, images, window) for window in windows]
        with torch.no_grad():
            outputs = [found.forward(head, batch, features) for batch, features in parts]
            merged = head.merge(outputs, windows, size)
        whole = Batch(images[..., : size[1]], {}, found.batch.ids, [Frame.whole(*size)] * len(images))
        predictions = head.predict(merged, whole)
        own = [head.predict(output, part) for output, (part, _) in zip(outputs, parts, strict=True)]
        for index, prediction in enumerate(predictions):
            for name, value in prediction.items():
                fault = _unlike_windows(name, value, [each[index] for each in own], windows, size)
                if fault is not None:
                    raise Nonconformity(
                        f"of {len(windows)} window{'s' if len(windows) > 1 else ''} over {size[0]}x{size[1]} pixels, "
                        "where only one looks, what that gives",
                        f"image {index}: {fault}",
                    )


def _misplaced(found: Bench, name: str, before: Tensor, after: Tensor, frame: Frame) -> str | None:
    """What is wrong with a prediction for an image with this frame, where it was `before` for an image as it is."""
    if _is_map(found, before):
        wanted = (*before.shape[:-2], *frame.original)
        if tuple(after.shape) != wanted:
            return f"{kind(after)}, not of {list(wanted)}"
        top, left, height, width = (int(value) for value in frame.content)
        if (height, width) != frame.original:
            return None
        return difference(before[..., top : top + height, left : left + width], after, ROUNDING)
    if _is_box(found, name, before):
        changed = difference(frame.to_original(before.float()), after.float(), PIXELS)
        return None if changed is None else f"box {changed}"
    if found.plan.field in SPATIAL_FIELDS and before.dim() > 1:
        return None  # of a form that the kit does not know
    return difference(before, after, ROUNDING)


def _shifted(found: Bench, plain: list[Prediction]) -> tuple[Frame, str]:
    """An original of which the batch shows more than the whole, where there are maps, or else a part."""
    height, width = found.size
    if any(_is_map(found, value) for one in plain for value in one.values()):
        top, left = height // 8, width // 4
        inner = height - 2 * top, width - 2 * left
        frame = Frame(inner, (height, width), (float(top), float(left), float(inner[0]), float(inner[1])))
        return frame, "that stands in the batch with a margin around it"
    outer = height + 24, width + 40
    frame = Frame(outer, (height, width), (-8.0, -16.0, float(outer[0]), float(outer[1])))
    return frame, "of which the batch shows a part"


def _must_have_places(found: Bench, plain: list[Prediction]) -> None:
    """Raises NotApplicable where there is no place to look at, Nonconformity where masks are not the image's size."""
    if found.plan.field == "mask" and not any(_is_map(found, value) for value in plain[0].values()):
        raise Nonconformity(
            f"a value for each pixel of the original, [{found.size[0]}, {found.size[1]}]", _form(plain[0])
        )
    if found.plan.field in SPATIAL_FIELDS and not any(_places(one) for one in plain):
        raise NotApplicable("an untrained head predicts no place: give it a lower threshold in its options")


def _places(prediction: Prediction) -> bool:
    """Whether there is anything in it that may be a place."""
    return any(value.dim() > 1 and value.numel() for value in prediction.values())


def _is_map(found: Bench, value: Tensor) -> bool:
    """Whether it has a value for each pixel."""
    return value.dim() >= 2 and tuple(value.shape[-2:]) == found.size


def _is_box(found: Bench, name: str, value: Tensor) -> bool:
    return found.plan.field == "boxes" and name == "boxes" and value.dim() == 2 and value.shape[1] == 4


def _of_window(found: Bench, images: Tensor, window: Window) -> tuple[Batch, dict[str, Tensor]]:
    rows, columns = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
    part = images[..., rows, columns]
    frames = [Frame.whole(window.height, window.width)] * len(part)
    with torch.no_grad():
        return Batch(part, {}, found.batch.ids, frames), found.run.model.backbone(part)


def _unlike_windows(
    name: str, value: Tensor, own: list[Prediction], windows: list[Window], size: tuple[int, int]
) -> str | None:
    """Where a prediction for an image of `size` is not that of the only window that sees a pixel."""
    if not bool(value.isfinite().all()):
        return f"{name!r} is not finite"
    if tuple(value.shape[-2:]) != size:
        return difference(own[0][name], value, ROUNDING) if len(windows) == 1 else None
    seen = torch.zeros(size, dtype=torch.int64)
    for window in windows:
        seen[window.top : window.top + window.height, window.left : window.left + window.width] += 1
    for window, part in zip(windows, own, strict=True):
        rows, columns = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
        single = seen[rows, columns] == 1
        changed = difference(part[name][..., single], value[..., rows, columns][..., single], ROUNDING)
        if changed is not None:
            return f"{name!r} of the window at {window.top}, {window.left}: {changed}"
    return None


def _form(prediction: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name}: {kind(value)}" for name, value in prediction.items())
