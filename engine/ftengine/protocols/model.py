"""From images to outputs, terms and measures: backbone, head, loss, metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ftengine.protocols.frame import Frame
from ftengine.protocols.task import Prediction, Targets

Output = dict[str, Any]
"""What a head returns, by name: tensors, or lists of one tensor an image where their shapes differ (detections).

The head's docstring says which, and its losses read them by name."""


@dataclass
class Batch:
    """What reaches a head: the images of one batch and one task's targets.

    `images`: float [B, 3, H, W], of clips [B, 3, T, H, W], normalised, on the model's device. `targets`: what the
    task's `collate` made, on the same device, in the batch's pixels. `ids`: the samples' ids. `frames`: where each
    image lies in the batch, and the way back to its original.
    """

    images: Tensor
    targets: Targets
    ids: list[str]
    frames: list[Frame]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class BackboneContext:
    """`weights`: the name of the published weights that will be loaded, None for none of the published ones.

    `levels`: the levels that the heads use, None for all; stages after the last of them may be left out.
    """

    weights: str | None = None
    levels: tuple[str, ...] | None = None


class Backbone(nn.Module):
    """Named stages, run in order; what each stage gives is a feature level.

    `stages` maps a level's name to its module; all of the backbone's parameters are in them. A stage takes what the
    one before it returned, the first the images, float [B, 3, H, W]. `channels` and `strides` (input pixels per
    feature pixel) have an entry for each level that `forward` returns as [B, C, H / stride, W / stride]. A level
    called ``pooled`` is the descriptor [B, C, 1, 1] that the published model's own classifier read (stride 0: it has
    no grid)::

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

    `clip`: the least number of frames of a backbone for clips, whose input is float [B, 3, T, H, W], its levels
    [B, C, T', H / stride, W / stride] and ``pooled`` [B, C, 1, 1, 1]; None where it is for images.
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
        clip: int | None = None,
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
        self.clip = clip

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that `forward` returns, in order."""
        return tuple(self.channels)

    def input_shape(self, size: tuple[int, int], batch: int = 1, frames: int | None = None) -> tuple[int, ...]:
        """The shape of a batch of (height, width) `size`; of clips with `frames`, or the least number that it takes."""
        return (batch, 3, *size) if self.clip is None else (batch, 3, frames or self.clip, *size)

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

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published file's tensors, renamed or resized where they are older or larger than `published` says."""
        return tensors

    def feature(self, name: str, state: Tensor, size: tuple[int, int]) -> Tensor:
        """What stage `name` returned, as [B, C, H', W']; `size` is the input images' (height, width)."""
        return state


@dataclass(frozen=True)
class HeadContext:
    """`channels` and `strides`: the backbone's, by level, in order. `task`: the fitted task.

    `backbone` is the name of the backbone. `weights` names the published weights that head and backbone are loaded
    with together, one of the head's spec's; None for none. The factory then sets `published`, or raises WeightsError
    where there are none for this backbone.
    """

    channels: Mapping[str, int]
    strides: Mapping[str, int]
    task: Any
    backbone: str = ""
    weights: str | None = None


@dataclass(frozen=True)
class PublishedModel:
    """A published file that holds a head's weights together with its backbone's.

    `url`: where it comes from. `names`: the head's ``state_dict`` names to the file's. `backbone`: what stands before
    the backbone's published names in the file. `replaced`: the head's names that keep their new values, because they
    depend on the classes. `discarded`: globs on the file's names that nothing here takes. `norm_eps`: the epsilon of
    the backbone's BatchNorm layers that the weights were measured with, if it is not the layers' own; the engine then
    scales the layers so that they do the same with theirs.
    """

    url: str
    names: Mapping[str, str]
    backbone: str
    replaced: tuple[str, ...] = ()
    discarded: tuple[str, ...] = ()
    norm_eps: float | None = None


@dataclass(frozen=True)
class Window:
    """A part of a batch that the model saw by itself: pixels [top, top + height) × [left, left + width)."""

    top: int
    left: int
    height: int
    width: int


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

    ``loss_in_eval`` says whether the outputs in eval mode are enough for the loss; if not, the validation loss is
    not computed. `published`: see :class:`PublishedModel`.
    """

    loss_in_eval = True
    published: PublishedModel | None = None

    @abstractmethod
    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        """level -> features to named tensors; in training with what the loss needs besides the batch's targets.

        For prediction on unlabelled images ``batch.targets`` is empty.
        """

    @abstractmethod
    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        """One prediction for each image, on the CPU, in original coordinates: see ``batch.frames``."""

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published file's tensors, under the names that `published` says where they are older."""
        return tensors

    def merge(self, outputs: Sequence[Output], windows: Sequence[Window], size: tuple[int, int]) -> Output:
        """The output for a whole batch of `size` (height, width), from those for overlapping windows of it.

        Needed of a head whose spec says ``windows=True``.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot merge the outputs of windows")


@dataclass(frozen=True)
class LossContext:
    """`task`: the fitted task (a balanced loss finds its class counts there).

    `head`: the head whose outputs it is given. A loss with weights of its own finds their size there, under a name
    that the heads of its task agree on.
    """

    task: Any
    head: Head | None = None


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
    def update(self, predictions: Sequence[Prediction], targets: Targets) -> None:
        """One batch, in order: `targets` are what the task's `collate` made, on the CPU.

        Boxes and masks are those of the original images, as the predictions are.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """All values, by name; NaN where the data do not define one (AUROC of an absent class)."""

    @abstractmethod
    def reset(self) -> None: ...

    @abstractmethod
    def merge(self, other: Metric) -> None:
        """Add what `other`, of the same making, has seen: as if all of it had been seen here, after what has been.

        In a run of several processes `other` comes from another one, and has been pickled on its way.
        """

    def details(self) -> dict[str, Any]:
        """What is too large for a table and a log line (a confusion matrix), as JSON data; for reports."""
        return {}
