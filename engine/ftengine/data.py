"""Samples to batches: held-out splits, encoding, fitting to size, augmentation, order, workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ftengine import seeding
from ftengine.config import ImageConfig
from ftengine.errors import DataError, FtengineError
from ftengine.images import fit
from ftengine.model import StreamBatch
from ftengine.protocols import Dataset, Encoder, Target, Targets


class Subset(Dataset):
    """Some samples of a dataset, as a dataset."""

    def __init__(self, data: Dataset, indices: np.ndarray) -> None:
        self.data = data
        self.indices = indices
        self.names = data.names

    def __len__(self) -> int:
        return len(self.indices)

    def target(self, index: int) -> Target:
        return self.data.target(int(self.indices[index]))

    def image(self, index: int) -> np.ndarray:
        return self.data.image(int(self.indices[index]))

    def sample_id(self, index: int) -> str:
        return self.data.sample_id(int(self.indices[index]))


def hold_out(
    data: Dataset, fraction: float, seed: int, strata: np.ndarray | None, what: str
) -> tuple[Dataset, Dataset]:
    """Split `data` in two, (rest, held out), the same way for the same seed; strata keep their proportions.

    Strata with a single sample stay in the rest. Raises DataError where a side would be empty.
    """
    held = round(len(data) * fraction)
    if not 0 < held < len(data):
        raise DataError(
            f"{what}_fraction {fraction} of {len(data)} samples leaves no sample on one side; "
            f"give `data.{what}`, another fraction, or more data"
        )
    generator = np.random.default_rng(seeding.derive(seed, "hold-out", what))
    order = generator.permutation(len(data))
    if strata is not None:
        order = _interleave(order, strata)
    return Subset(data, np.sort(order[held:])), Subset(data, np.sort(order[:held]))


def _interleave(order: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Reorder so that every prefix holds each stratum in proportion, to within one sample."""
    position = np.empty(len(order))
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        # The k-th of n members stands at (k + 1/2) / n of the way; a lone member goes to the end, out of the held part.
        spread = (np.arange(len(members)) + 0.5) / len(members) if len(members) > 1 else np.array([1.0])
        position[members] = spread
    ranks = np.lexsort((np.argsort(order), position))
    return np.asarray(ranks)


def fingerprint(data: Dataset) -> str:
    """A hash of ids and targets in order: another hash on resume means that the data have changed."""
    digest = hashlib.sha256()
    for index in range(len(data)):
        digest.update(data.sample_id(index).encode() + b"\n")
        for name, value in sorted(data.target(index).items()):
            digest.update(name.encode() + b"\n" + np.asarray(value).tobytes() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class Failure:
    """What a worker hands back in place of a sample that it could not read; the main process raises it."""

    message: str


@dataclass(frozen=True)
class Item:
    image: np.ndarray
    targets: dict[str, dict[str, np.ndarray]]
    id: str
    size: tuple[int, int]


Collator = Callable[[Sequence[Mapping[str, np.ndarray]]], Targets]
Augmentation = Any  # (image uint8 [H, W, 3], seed) -> the same form; None for none


class Split(TorchDataset[Item | Failure]):
    """One split of a stream, ready for workers: ``split[(epoch, index)]`` is that sample in that epoch."""

    def __init__(
        self,
        data: Dataset,
        encoders: Mapping[str, Encoder],
        collators: Mapping[str, Collator],
        image: ImageConfig,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        name: str = "",
    ) -> None:
        self.data = data
        self.encoders = dict(encoders)
        self.collators = dict(collators)
        self.config = image
        self.augmentation = augmentation
        self.seed = seed
        self.name = name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Item | Failure:
        epoch, index = key
        try:
            return self._item(epoch, index)
        except FtengineError as error:
            return Failure(str(error))
        except Exception as error:
            return Failure(f"sample {self.data.sample_id(index)}: {type(error).__name__}: {error}")

    def _item(self, epoch: int, index: int) -> Item:
        sample = self.data[index]
        image = sample.image
        size = (image.shape[0], image.shape[1])
        at_start = self.config.fit_at == "start" or self.augmentation is None
        if at_start:
            image = fit(image, self.config.size, self.config.fit)
        if self.augmentation is not None:
            try:
                image = self.augmentation(image, seeding.derive(self.seed, "augment", self.name, epoch, index))
            except FtengineError as error:
                raise DataError(f"sample {sample.id}: {error}") from error
        image = fit(image, self.config.size, self.config.fit)
        targets = {task: dict(encode(sample.target)) for task, encode in self.encoders.items()}
        return Item(image, targets, sample.id, size)

    def collate(self, items: Sequence[Item | Failure]) -> StreamBatch | Failure:
        """One batch; a failure among its samples stands for the whole."""
        good: list[Item] = []
        for item in items:
            if isinstance(item, Failure):
                return item
            good.append(item)
        images = torch.from_numpy(np.stack([item.image for item in good]))
        targets = {task: gather([item.targets[task] for item in good]) for task, gather in self.collators.items()}
        return StreamBatch(images, targets, [item.id for item in good], [item.size for item in good])


@dataclass
class TrainOrder:
    """The index lists of a training run from step `start` on: O(1) to start anywhere.

    Each epoch is a permutation, f(seed, epoch), cut into whole batches; what is left over is not used that epoch.
    """

    length: int
    batch_size: int
    seed: int
    stream: str
    start: int
    steps: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self.length // self.batch_size
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.steps):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = seeding.order(self.seed, epoch, self.length, self.stream)
            first = step % per_epoch * self.batch_size
            yield [(epoch, int(index)) for index in order[first : first + self.batch_size]]


def in_order(length: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Every sample once, in order: for evaluation and prediction."""
    return [[(0, i) for i in range(first, min(first + batch_size, length))] for first in range(0, length, batch_size)]


@dataclass
class LoaderSettings:
    """How batches are made: worker processes, and pinned memory for a GPU."""

    workers: int = 0
    pin_memory: bool = False


@dataclass
class Stream:
    """A dataset's splits, and the tasks that learn from it. `fingerprint` is the training split's."""

    name: str
    tasks: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None
    fingerprint: str = field(default="")


def batches(
    split: Split, order: TrainOrder | list[list[tuple[int, int]]], settings: LoaderSettings
) -> Iterator[StreamBatch]:
    """The batches that `order` lists; raises DataError for a sample that cannot be read."""
    loader: DataLoader[Any] = DataLoader(
        split,
        batch_sampler=order,
        num_workers=settings.workers,
        collate_fn=split.collate,
        pin_memory=settings.pin_memory,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's generator
        worker_init_fn=_start_worker if settings.workers else None,
    )
    for batch in loader:
        if isinstance(batch, Failure):
            raise DataError(batch.message)
        yield batch


def _start_worker(_: int) -> None:
    """One thread a worker: the processes are the parallelism."""
    import signal

    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends the workers
