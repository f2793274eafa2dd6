"""What steers and measures training. Imported when a run is built, and called as ``factory(options, context)``."""

from collections.abc import Mapping, Sequence

from ftengine.protocols import (
    Batch,
    FreezeContext,
    FreezePolicy,
    Loss,
    LossContext,
    Metric,
    MetricContext,
    Prediction,
    Progress,
    Regularizer,
    RegularizerContext,
    Targets,
)
from torch import Tensor
from torch.nn import functional as F

from my_plugin.plugin import HeadFirstOptions, QuietOptions, TemperedOptions


class Tempered(Loss):
    """Reads the head's ``logits`` [B, C] and ``label``, int64 [B]. Each term is a mean over the batch, and logged."""

    def __init__(self, options: TemperedOptions, context: LossContext) -> None:
        super().__init__()
        self.temperature = options.temperature

    def forward(self, output: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        logits = output["logits"].float() / self.temperature  # in float32: autocast may have made it bfloat16
        return {"tempered": F.cross_entropy(logits, batch.targets["label"])}


class ErrorRate(Metric):
    """Of all that it has seen, in whatever batches and processes, 0..1; NaN if that is nothing."""

    def __init__(self, options: object, context: MetricContext) -> None:
        self.reset()

    def reset(self) -> None:
        self.wrong, self.seen = 0, 0

    def update(self, predictions: Sequence[Prediction], targets: Targets) -> None:
        for prediction, label in zip(predictions, targets["label"], strict=True):
            self.wrong += int(prediction["scores"].argmax() != label)
        self.seen += len(predictions)

    def compute(self) -> dict[str, float]:
        return {"error_rate": self.wrong / self.seen if self.seen else float("nan")}

    def merge(self, other: Metric) -> None:
        assert isinstance(other, ErrorRate)
        self.wrong, self.seen = self.wrong + other.wrong, self.seen + other.seen


class HeadFirst(FreezePolicy):
    """A pure function of stages and progress: a resumed run asks again, and must get the same answer."""

    def __init__(self, options: HeadFirstOptions, context: FreezeContext) -> None:
        self.epochs = options.epochs

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return set(stages) if progress.epoch < self.epochs else set()


class Quiet(Regularizer):
    """Adds ``quiet`` to the loss of each training step. It follows from options and context alone: it is not saved."""

    backbone_only = True

    def __init__(self, options: QuietOptions, context: RegularizerContext) -> None:
        super().__init__()
        self.strength = options.strength
        self.level = context.levels[-1]

    def of_features(self, images: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        feature = features[self.level]
        if not feature.requires_grad:  # while the backbone is frozen there is nothing to change
            return {}
        return {"quiet": self.strength * feature.float().square().mean()}
