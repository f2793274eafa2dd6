"""Samples to batches: fitting to size, augmentation, encoding, padding, workers."""

from __future__ import annotations

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
from ftengine.geometry import Scene, fit_scene, padded
from ftengine.model import StreamBatch
from ftengine.order import TrainOrder, aspect_groups
from ftengine.protocols import IGNORE, Dataset, Encoder, Frame, Target, Targets
from ftengine.vocabulary import SPATIAL_FIELDS


@dataclass(frozen=True)
class Failure:
    """What a worker hands back in place of a sample that it could not read; the main process raises it."""

    message: str


Encoded = dict[str, Mapping[str, np.ndarray]]
"""What the encoder of each task made of one sample's target."""


@dataclass(frozen=True)
class Item:
    """One sample on its way into a batch; `truths` are the targets in the original's pixels."""

    image: np.ndarray
    targets: Encoded
    truths: Encoded
    id: str
    frame: Frame


Collator = Callable[[Sequence[Mapping[str, np.ndarray]]], Targets]
Augmentation = Callable[[Scene, int], Scene]


class Split(TorchDataset[Item | Failure]):
    """One split of a stream, ready for workers: ``split[(epoch, index)]`` is that sample in that epoch.

    `fields` are the target fields that the tasks learn from: no mask is read that none of them needs. `groups`, int
    [N], says which images are of like shape, so that a batch of them needs little padding.
    """

    def __init__(
        self,
        data: Dataset,
        encoders: Mapping[str, Encoder],
        collators: Mapping[str, Collator],
        image: ImageConfig,
        fields: frozenset[str] = frozenset(),
        augmentation: Augmentation | None = None,
        seed: int = 0,
        name: str = "",
        *,
        training: bool = False,
    ) -> None:
        self.data = data
        self.encoders = dict(encoders)
        self.collators = dict(collators)
        self.config = image
        self.fields = fields
        self.augmentation = augmentation
        self.seed = seed
        self.name = name
        self.training = training
        self.groups = aspect_groups(data) if training and image.fit in ("shorter", "none") else None

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
        target = dict(self.data.target(index))
        name = self.data.sample_id(index)
        image = self.data.image(index)
        if "mask" in self.fields:
            target["mask"] = self.data.mask(index)
            if target["mask"].shape != image.shape[:2]:
                raise DataError(f"sample {name}: its mask is of {target['mask'].shape}, its image of {image.shape[:2]}")
        boxes = target["boxes"] if "boxes" in self.fields else None
        whole = Scene(image, boxes, target.get("mask"))
        scene, frame = self._seen(whole, epoch, index)
        targets = self._encode(_moved(target, scene))
        in_place = self.training or scene is whole or not self.fields & SPATIAL_FIELDS
        return Item(scene.image, targets, targets if in_place else self._encode(target), name, frame)

    def _seen(self, scene: Scene, epoch: int, index: int) -> tuple[Scene, Frame]:
        """The scene as the model sees it in this epoch, and where in it the original lies."""
        if self.augmentation is None:
            return fit_scene(scene, self.config)
        fixed = self.config.fit not in ("shorter", "none")
        if self.config.fit_at == "start":
            scene, _ = fit_scene(scene, self.config)
        try:
            scene = self.augmentation(scene, seeding.derive(self.seed, "augment", self.name, epoch, index))
        except FtengineError as error:
            raise DataError(f"sample {self.data.sample_id(index)}: {error}") from error
        if fixed or self.config.fit_at == "end":
            scene, _ = fit_scene(scene, self.config)
        return scene, Frame.whole(*scene.size)

    def _encode(self, target: Target) -> Encoded:
        return {task: encode(target) for task, encode in self.encoders.items()}

    def collate(self, items: Sequence[Item | Failure]) -> StreamBatch | Failure:
        """One batch; a failure among its samples stands for the whole."""
        good: list[Item] = []
        for item in items:
            if isinstance(item, Failure):
                return item
            good.append(item)
        size = (max(item.image.shape[0] for item in good), max(item.image.shape[1] for item in good))
        if self.config.fit in ("shorter", "none"):
            size = padded(size)
        images = torch.from_numpy(np.stack([pad(item.image, size, 0) for item in good]))
        targets, truths = {}, {}
        for task, gather in self.collators.items():
            targets[task] = gather([_pad_mask(item.targets[task], size) for item in good])
            in_place = all(item.truths is item.targets and (self.training or item.frame.size == size) for item in good)
            truths[task] = targets[task] if in_place else gather([item.truths[task] for item in good])
        return StreamBatch(images, targets, [item.id for item in good], [item.frame for item in good], truths)


def pad(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """`array`, [H, W, …], filled up with `value` to the right and below, to `size`."""
    if array.shape[:2] == size:
        return array
    canvas = np.full((*size, *array.shape[2:]), value, array.dtype)
    canvas[: array.shape[0], : array.shape[1]] = array
    return canvas


def _pad_mask(encoded: Mapping[str, np.ndarray], size: tuple[int, int]) -> Mapping[str, np.ndarray]:
    """A task's arrays, with the one called ``mask`` as large as the batch's tensor; see `Task.encoder`."""
    return {**encoded, "mask": pad(encoded["mask"], size, IGNORE)} if "mask" in encoded else encoded


def _moved(target: Target, scene: Scene) -> Target:
    """`target` with the boxes and the mask of `scene`."""
    moved = dict(target)
    if scene.boxes is not None:
        moved["boxes"] = scene.boxes
        if scene.kept is not None:
            beside = [name for name in moved if name.startswith("box_")]
            moved |= {name: np.asarray(target[name])[scene.kept] for name in beside}
    if scene.mask is not None:
        moved["mask"] = scene.mask
    return moved


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
