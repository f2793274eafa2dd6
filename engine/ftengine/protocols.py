"""The contracts between the engine and the components that plugins bring.

Each class's docstring carries the smallest working implementation. Shapes: B images in a batch, C channels or
classes, H and W pixels. The engine calls factories as ``factory(options, context)``, where `options` is the
component's own options model, validated, and `context` is the dataclass named for the kind below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from ftengine.errors import DataError, name_list

__all__ = [
    "TARGET_FIELDS",
    "Backbone",
    "BackboneContext",
    "Batch",
    "Dataset",
    "DatasetContext",
    "FreezeContext",
    "FreezePolicy",
    "Head",
    "HeadContext",
    "LabelMap",
    "Loss",
    "LossContext",
    "Metric",
    "MetricContext",
    "Output",
    "Prediction",
    "Progress",
    "Sample",
    "Target",
    "Task",
    "TaskContext",
]

TARGET_FIELDS = {
    "label": "int, the index of the image's one class in the dataset's names['label']",
    "labels": "float32 [C], 1 for each class of names['labels'] that the image has, else 0",
    "values": "float32 [T], one number for each of names['values'], in original units",
}
"""The vocabulary of target fields: what a dataset provides, and what a task can learn from."""

Target = Mapping[str, Any]
"""One image's target fields, as plain Python and NumPy values."""

Output = dict[str, Tensor]
"""What a head returns: named tensors; the head's docstring says which, and its losses read them by name."""

Prediction = dict[str, Tensor]
"""One image's prediction, on the CPU, in original image coordinates and original units."""


# --- data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One image with its target: `image` is uint8 [H, W, 3] RGB; `id` names it in messages and result files."""

    image: np.ndarray
    target: Target
    id: str


class Dataset(ABC):
    """One split of labelled images: no tensors, no randomness, no augmentation.

    ``names[field]`` gives the class or value names behind a target field, in index order; a field that is not
    in `names` is not provided. Reading a target must not decode the image::

        class Constant(Dataset):
            names = {"label": ("dark", "light")}
            def __len__(self): return 2
            def target(self, index): return {"label": index}
            def sample_id(self, index): return f"constant-{index}"
            def image(self, index): return np.full((8, 8, 3), 255 * index, np.uint8)

    A broken file raises :class:`ftengine.errors.DataError` from `image`, with the file's name.
    """

    names: Mapping[str, tuple[str, ...]]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def target(self, index: int) -> Target:
        """The target fields of sample `index`; at least those in `names`."""

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """The image of sample `index`: uint8 [H, W, 3], RGB."""

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """A name of sample `index` that a person can find it by, the same in every run."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.image(index), self.target(index), self.sample_id(index))


@dataclass(frozen=True)
class DatasetContext:
    """`split` is ``train``, ``val`` or ``test``: the factory returns that split as its options describe it."""

    split: str


@dataclass(frozen=True)
class LabelMap:
    """Class names in index order: made once from the training split, stored with the model, checked ever after.

    `background` and `ignore` are indices with a special meaning, where a task has them.
    """

    names: tuple[str, ...]
    background: int | None = None
    ignore: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def remap(self, names: Sequence[str], place: str) -> np.ndarray:
        """For each of another split's `names`, its index here: int64 [len(names)].

        Raises DataError, naming `place`, for a name that this map lacks.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DataError(
                f"{place} has {'a class' if len(missing) == 1 else 'classes'} that the training split lacks: "
                f"{name_list(missing)}; the training split's classes: {name_list(self.names)}"
            )
        index = {name: i for i, name in enumerate(self.names)}
        return np.array([index[name] for name in names], dtype=np.int64)


@dataclass
class Batch:
    """What reaches a head: the images of one batch and one task's targets.

    `images`: float [B, 3, H, W], normalised, on the model's device. `targets`: the task's collated tensors by
    name. `ids`: the samples' ids. `sizes`: original (height, width) of each image.
    """

    images: Tensor
    targets: dict[str, Tensor]
    ids: list[str]
    sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)


# --- tasks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskContext:
    """`field`: the target field to learn from, chosen among those that the task's spec and the dataset share."""

    field: str


class Task(ABC):
    """How one task's targets become tensors, and its predictions become answers.

    Life: made by its factory; `fit` on the training split (or `load_state` from a checkpoint, never both); then
    `encoder` once for each split. The state is plain JSON and is stored with the model::

        class Brightness(Task):
            def fit(self, data): self.names = tuple(data.names["values"])
            def state(self): return {"names": list(self.names)}
            def load_state(self, state): self.names = tuple(state["names"])
            def encoder(self, data, place):
                return lambda target: {"values": np.asarray(target["values"], np.float32)}
            def describe(self, prediction):
                return dict(zip(self.names, prediction["values"].tolist()))
    """

    @abstractmethod
    def fit(self, data: Dataset) -> None:
        """Learn the schema (label map, statistics, …) from the training split, and check every target of it.

        Raises DataError that names the sample and what is wrong with it.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON data."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""

    @abstractmethod
    def encoder(self, data: Dataset, place: str) -> Encoder:
        """A function from one sample's target to named arrays, for a split with its own names.

        Checks that split against what was fitted; raises DataError that begins with `place`. The function is
        called in worker processes, so it must pickle (a bound method or a small class does). Arrays of one name
        have the same shape in every sample: the engine stacks them.
        """

    @abstractmethod
    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """A prediction as a flat row of strings and numbers, as `ftengine predict` writes it."""

    def strata(self, data: Dataset) -> np.ndarray | None:
        """An int for each sample whose distribution a held-out split should keep, or None for any split."""
        return None


class Encoder(Protocol):
    def __call__(self, target: Target) -> Mapping[str, np.ndarray]: ...


# --- model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BackboneContext:
    """`weights`: the name of the published weights that will be loaded, None for none of the published ones.

    `levels`: the levels that the heads use, None for all; stages after the last of them may be left out.
    """

    weights: str | None = None
    levels: tuple[str, ...] | None = None


class Backbone(nn.Module):
    """Named stages, run in order; what each stage gives is a feature level.

    `stages` maps a level's name to its module. A stage takes what the one before it returned, the first the
    images, float [B, 3, H, W]. `channels` and `strides` (input pixels per feature pixel) have an entry for each
    level that `forward` returns as [B, C, H / stride, W / stride]. A level called ``pooled`` is the descriptor
    [B, C, 1, 1] that the published model's own classifier read (stride 0: it has no grid)::

        class Tiny(Backbone):
            def __init__(self):
                super().__init__(
                    stages={"c1": nn.Conv2d(3, 8, 3, 2, 1), "c2": nn.Conv2d(8, 16, 3, 2, 1)},
                    channels={"c1": 8, "c2": 16},
                    strides={"c1": 2, "c2": 4},
                )

    Where stages hand on something else than [B, C, H, W] (tokens, channels last), override `feature`.

    `mean` and `std` (3 numbers each, for images in 0..1) are those the weights named in the context were trained
    with. `url` is where these come from, kept in a cache file called `weights_file` (None: the url's last part).
    `published` maps this module's ``state_dict`` names to the names in published files (empty: they are the same);
    `discarded` are published names that this backbone does not use, such as the classifier's. `channels_last` says
    whether the memory format suits the architecture. `min_size` is the least height and width it takes.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        url: str | None = None,
        weights_file: str | None = None,
        published: Mapping[str, str] | None = None,
        discarded: Sequence[str] = (),
        channels_last: bool = True,
        min_size: int = 1,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.channels = dict(channels)
        self.strides = dict(strides)
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.url = url
        self.weights_file = weights_file
        self.published = dict(published or {})
        self.discarded = tuple(discarded)
        self.channels_last = channels_last
        self.min_size = min_size

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that `forward` returns, in order."""
        return tuple(self.channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images, float [B, 3, H, W], to level -> [B, C, H', W']."""
        size = (images.shape[-2], images.shape[-1])
        features = {}
        state = images
        for name, stage in self.stages.items():
            state = stage(state)
            if name in self.channels:
                features[name] = self.feature(name, state, size)
        return features

    def feature(self, name: str, state: Tensor, size: tuple[int, int]) -> Tensor:
        """What stage `name` returned, as [B, C, H', W']; `size` is the input images' (height, width)."""
        return state


@dataclass(frozen=True)
class HeadContext:
    """`channels` and `strides`: the backbone's, by level, in order. `task`: the fitted task."""

    channels: Mapping[str, int]
    strides: Mapping[str, int]
    task: Any


class Head(nn.Module, ABC):
    """Features to outputs, and outputs to predictions.

    ::

        class Linear(Head):
            def __init__(self, channels, classes):
                super().__init__()
                self.fc = nn.Linear(channels, classes)
            def forward(self, features, batch):
                last = list(features.values())[-1]
                return {"logits": self.fc(last.mean((2, 3)))}
            def predict(self, output, batch):
                return [{"scores": row} for row in output["logits"].softmax(-1).float().cpu()]
    """

    @abstractmethod
    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        """level -> [B, C, H, W] to named tensors; in training with what the loss needs besides the batch's targets.

        For prediction on unlabelled images ``batch.targets`` is empty.
        """

    @abstractmethod
    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        """One prediction for each image, on the CPU."""


@dataclass(frozen=True)
class LossContext:
    """`task`: the fitted task (a balanced loss finds its class counts there)."""

    task: Any


class Loss(nn.Module, ABC):
    """Outputs to named terms, each a scalar mean over the batch; the loop weights, sums and logs them.

    ::

        class CrossEntropy(Loss):
            def forward(self, output, batch):
                return {"cross_entropy": F.cross_entropy(output["logits"], batch.targets["label"])}
    """

    @abstractmethod
    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class MetricContext:
    """`task`: the fitted task."""

    task: Any


class Metric(ABC):
    """A measure over a whole split, from batches in any grouping; in original units.

    ::

        class Accuracy(Metric):
            def __init__(self): self.reset()
            def reset(self): self.right, self.all = 0, 0
            def update(self, predictions, targets):
                for prediction, label in zip(predictions, targets["label"]):
                    self.right += int(prediction["scores"].argmax() == label)
                    self.all += 1
            def compute(self): return {"accuracy": self.right / self.all}
            def merge(self, other): self.right += other.right; self.all += other.all
    """

    @abstractmethod
    def update(self, predictions: Sequence[Prediction], targets: Mapping[str, Tensor]) -> None:
        """One batch: `targets` are the task's collated targets, on the CPU, in the predictions' order."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """All values, by name; NaN where the data do not define one (AUROC of an absent class)."""

    @abstractmethod
    def reset(self) -> None: ...

    @abstractmethod
    def merge(self, other: Metric) -> None:
        """Add what `other`, of the same making, has seen: as if all of it had been seen here."""

    def details(self) -> dict[str, Any]:
        """What is too large for a table and a log line (a confusion matrix), as JSON data; for reports."""
        return {}


# --- fine-tuning -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """Where a run is: `epoch` counts finished epochs, from 0, of `epochs`."""

    epoch: int
    epochs: int


@dataclass(frozen=True)
class FreezeContext:
    """`stages`: each backbone stage's parameter names, in order; a name is ``<stage>.<name within it>``."""

    stages: Mapping[str, Sequence[str]]


class FreezePolicy(ABC):
    """What does not train, as a pure function of stages and progress: a resumed run computes it anew.

    The result holds stage names and parameter names of the backbone; a stage's name stands for all in it. A
    normalisation layer whose parameters are all frozen stays in eval mode. Heads always train::

        class Probe(FreezePolicy):
            def frozen(self, stages, progress): return set(stages)

    The factory may raise ConfigError-worthy mistakes (a stage that does not exist) as
    :class:`ftengine.errors.FtengineError`; `context.stages` is there for that.
    """

    @abstractmethod
    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]: ...
