"""Samples to batches: fitting to size, augmentation, encoding, padding."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from ftengine import seeding
from ftengine.config import ImageConfig
from ftengine.errors import DataError, FtengineError
from ftengine.geometry import Scene, fit_scene, padded
from ftengine.model import StreamBatch
from ftengine.order import aspect_groups
from ftengine.protocols import IGNORE, Companions, Dataset, Encoder, Frame, Target, Targets
from ftengine.quarantine import ATTEMPTS, BadSample, Quarantine, replacement
from ftengine.vocabulary import SPATIAL_FIELDS


@dataclass(frozen=True)
class Failure:
    """What a worker hands back in place of a sample that it could not read; the main process raises it."""

    message: str


@dataclass(frozen=True)
class Gap:
    """What an evaluation has in place of a sample that is in quarantine."""

    bad: list[BadSample]


Encoded = dict[str, Mapping[str, np.ndarray]]
"""What the encoder of each task made of one sample's target."""


@dataclass(frozen=True)
class Item:
    """Sample `index` on its way into a batch; `truths` are the targets in the original's pixels.

    `bad`: the samples in whose place it is.
    """

    image: np.ndarray
    targets: Encoded
    truths: Encoded
    id: str
    frame: Frame
    index: int
    bad: list[BadSample] = field(default_factory=list)


Collator = Callable[[Sequence[Mapping[str, np.ndarray]]], Targets]
Augmentation = Callable[[Scene, int], Scene]


class Split(TorchDataset[Item | Failure | Gap]):
    """One split of a stream, ready for workers: ``split[(epoch, index)]`` is that sample in that epoch.

    `fields` are the target fields that the tasks learn from: no mask is read that none of them needs. `groups`
    says which samples come together in a training batch: the `companions` that a task asks for, or, int [N], images of
    like shape, so that a batch of them needs little padding. `frames`: how many each sample must have, which is a clip
    then; None: it must be an image. With a `quarantine`, a sample that cannot be read is replaced by another in
    training, and left out otherwise; without, it is a failure.
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
        frames: int | None = None,
        *,
        training: bool = False,
        quarantine: Quarantine | None = None,
        companions: Companions | None = None,
    ) -> None:
        self.data = data
        self.encoders = dict(encoders)
        self.collators = dict(collators)
        self.config = image
        self.fields = fields
        self.augmentation = augmentation
        self.seed = seed
        self.name = name
        self.frames = frames
        self.training = training
        self.quarantine = quarantine
        self.groups: np.ndarray | Companions | None = companions
        if companions is None and training and image.fit in ("shorter", "none"):
            self.groups = aspect_groups(data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Item | Failure | Gap:
        epoch, place = key
        index, bad = place, list[BadSample]()
        while isinstance(read := self._read(index), BadSample):
            bad.append(read)
            if self.quarantine is None or not read.lasting:
                return Failure(read.cause)
            self.quarantine.known[index] = read
            if not self.training:
                return Gap(bad)
            if len(bad) == ATTEMPTS:
                return Failure(f"{read.cause}\n  and no readable sample was found to take its place")
            index = replacement(self.seed, self.name, epoch, place, len(bad), len(self))
        try:
            # The place, not the sample, says how it is augmented: its other use in the epoch is seen in another way.
            item = self._item(*read, index, seeding.derive(self.seed, "augment", self.name, epoch, place))
        except FtengineError as error:
            return Failure(str(error))
        except Exception as error:
            return Failure(f"sample {self.data.sample_id(index)}: {type(error).__name__}: {error}")
        return replace(item, bad=bad) if bad else item

    def _read(self, index: int) -> tuple[dict[str, Any], np.ndarray] | BadSample:
        """The target and the image of a sample, as the dataset has them."""
        if self.quarantine is not None and index in self.quarantine.known:
            return self.quarantine.known[index]
        name = f"number {index}"
        try:
            name = self.data.sample_id(index)
            target = dict(self.data.target(index))
            image = self.data.image(index)
            _check_frames(image, self.frames, name)
            if "mask" in self.fields:
                mask = target["mask"] = self.data.mask(index)
                if mask.shape != image.shape[:2]:
                    raise DataError(f"sample {name}: its mask is of {mask.shape}, its image of {image.shape[:2]}")
        except Exception as error:
            cause = (
                str(error) if isinstance(error, FtengineError) else f"sample {name}: {type(error).__name__}: {error}"
            )
            return BadSample(index, name, cause, lasting=not _of_the_machine(error))
        return target, image

    def _item(self, target: dict[str, Any], image: np.ndarray, index: int, seed: int) -> Item:
        boxes = target["boxes"] if "boxes" in self.fields else None
        whole = Scene(image, boxes, target.get("mask"))
        scene, frame = self._seen(whole, index, seed)
        targets = self._encode(_moved(target, scene))
        in_place = self.training or scene is whole or not self.fields & SPATIAL_FIELDS
        truths = targets if in_place else self._encode(target)
        return Item(scene.image, targets, truths, self.data.sample_id(index), frame, index)

    def _seen(self, scene: Scene, index: int, seed: int) -> tuple[Scene, Frame]:
        """The scene of sample `index` as the model sees it, and where in it the original lies."""
        if self.augmentation is None:
            return fit_scene(scene, self.config)
        fixed = self.config.fit not in ("shorter", "none")
        if self.config.fit_at == "start":
            scene, _ = fit_scene(scene, self.config)
        try:
            scene = self.augmentation(scene, seed)
        except FtengineError as error:
            raise DataError(f"sample {self.data.sample_id(index)}: {error}") from error
        if fixed or self.config.fit_at == "end":
            scene, _ = fit_scene(scene, self.config)
        return scene, Frame.whole(*scene.size)

    def _encode(self, target: Target) -> Encoded:
        return {task: encode(target) for task, encode in self.encoders.items()}

    def collate(self, items: Sequence[Item | Failure | Gap]) -> StreamBatch | Failure:
        """One batch; a failure among its samples stands for the whole. Without any sample it has no targets."""
        good: list[Item] = []
        bad: list[BadSample] = []
        for item in items:
            if isinstance(item, Failure):
                return item
            bad += item.bad
            if isinstance(item, Item):
                good.append(item)
        if not good:
            return StreamBatch(torch.empty(0, 0, 0, 3, dtype=torch.uint8), {}, [], [], bad=bad)
        size = (max(item.image.shape[-3] for item in good), max(item.image.shape[-2] for item in good))
        if self.config.fit in ("shorter", "none"):
            size = padded(size)
        axis = good[0].image.ndim - 3
        images = torch.from_numpy(np.stack([pad(item.image, size, 0, axis) for item in good]))
        targets, truths = {}, {}
        for task, gather in self.collators.items():
            targets[task] = gather([_pad_mask(item.targets[task], size) for item in good])
            in_place = all(item.truths is item.targets and (self.training or item.frame.size == size) for item in good)
            truths[task] = targets[task] if in_place else gather([item.truths[task] for item in good])
        ids, frames, indices = zip(*((item.id, item.frame, item.index) for item in good), strict=True)
        return StreamBatch(images, targets, list(ids), list(frames), truths, list(indices), bad)


PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""Errors of files that say nothing of the file: too many are open, memory or a network disk is gone."""


def _of_the_machine(error: BaseException | None) -> bool:
    """Whether a sample could not be read because of the machine, so that it may be read another time."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in PASSING):
            return True
        error = error.__cause__
    return False


def _check_frames(image: np.ndarray, frames: int | None, name: str) -> None:
    """Raises DataError where a sample is an image in place of a clip of `frames`, or the reverse, or another clip."""
    if image.ndim != (3 if frames is None else 4) or (frames is not None and len(image) != frames):
        expected = "[H, W, 3]" if frames is None else f"[{frames}, H, W, 3]"
        raise DataError(f"sample {name}: expected an image of {expected}, found {list(image.shape)}")


def pad(array: np.ndarray, size: tuple[int, int], value: int, axis: int = 0) -> np.ndarray:
    """`array`, whose H and W are `axis` and the next, filled up with `value` to the right and below, to `size`."""
    if array.shape[axis : axis + 2] == size:
        return array
    canvas = np.full((*array.shape[:axis], *size, *array.shape[axis + 2 :]), value, array.dtype)
    canvas[tuple(slice(length) for length in array.shape)] = array
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
class Stream:
    """A dataset's splits, and the tasks that learn from it. `fingerprints` are those of the splits there are."""

    name: str
    tasks: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None
    fingerprints: dict[str, str] = field(default_factory=dict)
