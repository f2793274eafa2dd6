"""Checks of datasets: what a sample is, and that it is the same whenever and wherever it is read."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ftengine.build import make
from ftengine.errors import name_list
from ftengine.plugin import DatasetOptions
from ftengine.protocols import Dataset, DatasetContext
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.fields import FIELD_CHECKS
from ftengine.testing.randomness import global_seeds, noted_draws
from ftengine.testing.same import difference, kind, pickled
from ftengine.testing.subject import Subject

MOST = 16
"""Samples of a split that are read."""


@check("dataset")
def dataset_names(subject: Subject) -> None:
    """`names` holds the target fields that the spec and the options promise, each with names that differ."""
    spec, options = subject.part.spec, subject.part.options
    assert isinstance(options, DatasetOptions)
    stated = options.target_fields()
    promised = set(spec.fields if stated is None else stated)
    extra = promised - set(spec.fields)
    if extra:
        raise Nonconformity(f"that the options promise fields of the spec: {name_list(spec.fields)}", name_list(extra))
    for split, data in _splits(subject):
        if set(data.names) != promised:
            raise Nonconformity(f"names of {name_list(promised)} in the {split} split", f"of {name_list(data.names)}")
        for field, names in data.names.items():
            good = isinstance(names, tuple) and names and all(isinstance(name, str) and name for name in names)
            if not good or len(set(names)) < len(names):
                raise Nonconformity(f"a tuple of different names for `{field}`", repr(names))
        for field, numbers in data.ids.items():
            if len(set(numbers)) != len(data.names.get(field, ())) or len(set(numbers)) != len(numbers):
                raise Nonconformity(
                    f"a different id for each of {len(data.names.get(field, ()))} names of `{field}`", repr(numbers)
                )


@check("dataset")
def dataset_ids(subject: Subject) -> None:
    """Each sample has a name of its own, a text that is not empty."""
    for split, data in _splits(subject):
        seen: dict[str, int] = {}
        for index in range(len(data)):
            name: Any = data.sample_id(index)
            if not isinstance(name, str) or not name:
                raise Nonconformity("a text as sample_id()", f"{name!r} for sample {index} of the {split} split")
            if name in seen:
                raise Nonconformity(
                    "a sample_id() of its own for each sample",
                    f"{name!r} for samples {seen[name]} and {index} of the {split} split",
                )
            seen[name] = index


@check("dataset")
def dataset_splits(subject: Subject) -> None:
    """Splits that the options name apart have samples of their own."""
    options = subject.part.options
    opened = [(split, data) for split, data in _splits(subject)]
    apart = [
        (one, other)
        for one, other in itertools.combinations(opened, 2)
        if getattr(options, one[0]) != getattr(options, other[0])
    ]
    if not apart:
        raise NotApplicable("the small run names one split only, of which the engine holds the others out")
    for (first, data), (second, other) in apart:
        places = {data.sample_id(index): index for index in range(len(data))}
        indices = [index for index in _spread(len(other)) if other.sample_id(index) in places]
        same = [
            index
            for index in indices
            if difference(_read(data, places[other.sample_id(index)]), _read(other, index)) is None
        ]
        if len(same) == len(_spread(len(other))):
            raise Nonconformity(
                f"other samples in the {second} split, {getattr(options, second)!r}, than in the {first} split",
                f"the same ones, as {name_list(other.sample_id(index) for index in same)}: see context.split",
            )


@check("dataset")
def dataset_images(subject: Subject) -> None:
    """Images are uint8 [H, W, 3], clips uint8 [T, H, W, 3], and of the size that size() gives."""
    options = subject.part.options
    assert isinstance(options, DatasetOptions)
    frames = options.clip_frames()
    shape, due = ((), "[height, width, 3]") if frames is None else ((frames,), f"[{frames}, height, width, 3]")
    for data, index, name in _samples(subject):
        image: Any = data.image(index)
        good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size
        if not good or (*image.shape[:-3], image.shape[-1], image.ndim) != (*shape, 3, len(shape) + 3):
            raise Nonconformity(f"array uint8 {due} from image()", f"{kind(image)} for sample {name}")
        size = data.size(index)
        if size is not None and tuple(size) != image.shape[-3:-1]:
            raise Nonconformity(
                f"(height, width) of the image from size(), {image.shape[-3:-1]}", f"{tuple(size)} for sample {name}"
            )


@check("dataset")
def dataset_targets(subject: Subject) -> None:
    """Targets hold each field in `names` as ftengine.protocols.TARGET_FIELDS describes it."""
    for data, index, name in _samples(subject):
        target: Any = data.target(index)
        if not isinstance(target, Mapping):
            raise Nonconformity("a mapping from target()", f"{kind(target)} for sample {name}")
        for field, names in data.names.items():
            if field not in FIELD_CHECKS:
                continue
            if field == "mask":
                value: Any = data.mask(index)
            elif field in target:
                value = target[field]
            else:
                raise Nonconformity(f"`{field}` in each target", f"{name_list(target)} for sample {name}")
            try:
                FIELD_CHECKS[field](value, target, names, data.image(index).shape[-3:-1])
            except ValueError as error:
                raise Nonconformity(f"`{field}` as the vocabulary has it", f"{error}, for sample {name}") from None


@check("dataset")
def dataset_stable(subject: Subject) -> None:
    """A sample is the same whenever it is read: again, in another order, from a copy in a worker process."""
    for split, data in _splits(subject):
        indices = _spread(len(data))
        first = {index: _read(data, index) for index in indices}
        copied = pickled(data, "a dataset", "as it is read in worker processes")
        again = _opened(subject, split)
        ways = (("a second time", data), ("from a pickled dataset", copied), ("from one of the same making", again))
        for how, other in ways:
            if len(other) != len(data):
                raise Nonconformity(f"{len(data)} samples {how}", f"{len(other)} in the {split} split")
            for index in reversed(indices):
                changed = difference(first[index], _read(other, index))
                if changed is not None:
                    raise Nonconformity(f"the same {how}", f"{changed}, for sample {data.sample_id(index)}")
        for index in indices:
            sample = data[index]
            whole = {"image": sample.image, "target": dict(sample.target), "id": sample.id}
            parts = {key: first[index][key] for key in whole}
            changed = difference(parts, whole)
            if changed is not None:
                raise Nonconformity(
                    "the same from data[index] as from its methods", f"{changed}, for sample {sample.id}"
                )


@check("dataset")
def dataset_own_arrays(subject: Subject) -> None:
    """What is done to an image or a target after it was returned is not seen when it is read again."""
    for data, index, name in _samples(subject):
        first = _read(data, index)
        changed = difference(first, _read(data, index))
        if changed is not None:
            raise Nonconformity("a sample that is the same when it is read again", f"{changed}: see dataset_stable")
        arrays = [array for array in _arrays(_read(data, index, copied=False)) if array.flags.writeable]
        before = [array.copy() for array in arrays]
        try:
            for array in arrays:
                array[...] = 1 - array if array.dtype != bool else ~array
            changed = difference(first, _read(data, index))
        finally:
            # They may be a file's own bytes (np.memmap), which an author does not want to lose to a check.
            for array, values in zip(arrays, before, strict=True):
                array[...] = values
        if changed is not None:
            raise Nonconformity(
                "arrays that belong to whoever gets them", f"after they were written to, {changed}, for sample {name}"
            )


@check("dataset")
def dataset_no_randomness(subject: Subject) -> None:
    """Making a dataset and reading it neither uses nor depends on the global generators of random, numpy and torch."""
    for split, _ in _splits(subject):
        reads, drawn = [], list[str]()
        for seed in (1, 2):
            with global_seeds(seed), noted_draws(drawn):
                data = _opened(subject, split)
                reads.append([_read(data, index) for index in _spread(len(data))])
        changed = difference(reads[0], reads[1])
        if changed is not None:
            raise Nonconformity("the same samples with other global seeds", f"item {changed}, of the {split} split")
        if drawn:
            raise Nonconformity("that global generators are left alone", f"numbers drawn from {name_list(set(drawn))}")


@check("dataset")
def dataset_end(subject: Subject) -> None:
    """Beyond its last sample a dataset raises IndexError, which ends a loop over it."""
    for split, data in _splits(subject):
        try:
            data[len(data)]
        except IndexError:
            continue
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        else:
            found = "a sample"
        raise Nonconformity(
            f"IndexError from data[{len(data)}] of {len(data)} samples", f"{found}, in the {split} split"
        )


def _splits(subject: Subject) -> Iterator[tuple[str, Dataset]]:
    """The splits that the small run's options give."""
    for split in ("train", "val", "test"):
        if split == "train" or getattr(subject.part.options, split) is not None:
            data = _opened(subject, split)
            if not len(data):
                raise Nonconformity(f"samples in the {split} split", "none")
            yield split, data


def _opened(subject: Subject, split: str) -> Dataset:
    return make(subject.part, DatasetContext(split), Dataset)  # type: ignore[type-abstract]


def _samples(subject: Subject) -> Iterator[tuple[Dataset, int, str]]:
    """Some samples of each split, with the dataset and their names."""
    for _, data in _splits(subject):
        for index in _spread(len(data)):
            yield data, index, data.sample_id(index)


def _spread(length: int) -> list[int]:
    """Indices from the first to the last, some of them left out if there are many."""
    return sorted(set(np.linspace(0, length - 1, MOST).round().astype(int).tolist()))


def _read(data: Dataset, index: int, *, copied: bool = True) -> dict[str, Any]:
    """All that a dataset says of a sample."""
    target = dict(data.target(index))
    if "mask" in data.names:
        target["mask"] = data.mask(index)
    sample = {"id": data.sample_id(index), "target": target, "image": data.image(index), "size": data.size(index)}
    return copy.deepcopy(sample) if copied else sample


def _arrays(sample: Mapping[str, Any]) -> list[np.ndarray]:
    """The arrays of numbers in a sample."""
    values = (sample["image"], *sample["target"].values())
    return [value for value in values if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"]
