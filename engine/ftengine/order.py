"""In which order samples come, and which of them make a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ftengine import seeding
from ftengine.errors import FtengineError
from ftengine.protocols import Companions, Dataset, Task

ASPECT_EDGES = 2.0 ** np.array([-2 / 3, -1 / 3, 0, 1 / 3, 2 / 3])
"""Where one group of aspect ratios (width / height) ends and the next begins: a factor of 1.26 in between."""


@dataclass
class TrainOrder:
    """The index lists of a training run from step `start` on: O(1) to start anywhere.

    Each epoch is a permutation, f(seed, epoch), cut into whole batches; what is left over is not used that epoch. With
    `groups` the batches are made of the same samples, those of one group together: whole batches of them, or, of
    companions, a few. Of each batch the process `rank` of `size` gets its part: the batches do not depend on the number
    of processes.
    """

    length: int
    batch_size: int
    seed: int
    stream: str
    start: int
    steps: int
    groups: np.ndarray | Companions | None = None
    rank: int = 0
    size: int = 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self.length // self.batch_size
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.steps):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = seeding.order(self.seed, epoch, self.length, self.stream)
                if isinstance(self.groups, Companions):
                    order = companions_together(order[: per_epoch * self.batch_size], self.groups)
                elif self.groups is not None:
                    order = like_shapes_together(order[: per_epoch * self.batch_size], self.groups, self.batch_size)
            first = step % per_epoch * self.batch_size
            start, end = (first + self.batch_size * rank // self.size for rank in (self.rank, self.rank + 1))
            yield [(epoch, int(index)) for index in order[start:end]]


def in_order(length: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Every sample once, in order: for evaluation and prediction."""
    return [[(0, i) for i in range(first, min(first + batch_size, length))] for first in range(0, length, batch_size)]


def aspect_groups(data: Dataset) -> np.ndarray | None:
    """The group of each image's aspect ratio, int [N]; None where the data do not know their images' sizes."""
    sizes = [data.size(index) or ((1, 1) if index in data.unreadable else None) for index in range(len(data))]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    heights, widths = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return np.digitize(widths / heights, ASPECT_EDGES)


def like_shapes_together(order: np.ndarray, groups: np.ndarray, batch_size: int) -> np.ndarray:
    """`order`, a whole number of batches, dealt into batches of one group each as far as the numbers allow.

    What is left over of the groups makes batches with its neighbours in aspect.
    """
    waiting: dict[int, list[int]] = {}
    batches: list[list[int]] = []
    for index in order.tolist():
        bucket = waiting.setdefault(int(groups[index]), [])
        bucket.append(index)
        if len(bucket) == batch_size:
            batches.append(waiting.pop(int(groups[index])))
    rest = [index for group in sorted(waiting) for index in waiting[group]]
    batches += [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    # A batch comes where its first sample stood, so that those of the rest are not all at the end of every epoch.
    place = {index: position for position, index in enumerate(order.tolist())}
    batches.sort(key=lambda batch: place[batch[0]])
    return np.array([index for batch in batches for index in batch], dtype=np.int64)


def companions(tasks: Iterable[Task], data: Dataset) -> Companions | None:
    """What the first of a stream's tasks that says so wants together in the batches of `data`, its training split."""
    for task in tasks:
        found = task.companions(data)
        if found is None:
            continue
        if found.groups.shape != (len(data),) or found.count < 2:
            raise FtengineError(
                f"{type(task).__name__}.companions gave groups of shape {list(found.groups.shape)} and a count of "
                f"{found.count}; expected [{len(data)}], one for each sample, and 2 or more"
            )
        return found
    return None


def companions_together(order: np.ndarray, companions: Companions) -> np.ndarray:
    """`order` with the samples of each group dealt into runs of about `count`, each where its first sample stood.

    A group's runs differ in length by one at most, and none is of one sample if the group has two. Which run lies
    across the edge of a batch, chance says.
    """
    groups = companions.groups[order]
    place = np.argsort(groups, kind="stable")  # group by group, each in the order of the epoch
    sizes = np.unique(groups, return_counts=True)[1]
    parts = np.maximum(1, np.minimum(np.rint(sizes / companions.count).astype(np.int64), sizes // 2))
    # Of n samples the run r of p begins at n r / p, rounded down.
    runs = np.concatenate([np.arange(own) for own in parts])
    starts = np.repeat(np.cumsum(sizes) - sizes, parts) + np.repeat(sizes, parts) * runs // np.repeat(parts, parts)
    first = np.repeat(place[starts], np.diff(starts, append=len(order)))
    return np.asarray(order[place[np.lexsort((place, first))]])
