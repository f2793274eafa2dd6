"""Losses of classification. All are computed in float32, whatever type the logits have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ftengine.errors import FtengineError, unknown
from ftengine.protocols import Batch, LabelMap, Loss, LossContext, Output
from ftengine_classification.options import BinaryCrossEntropyOptions, CrossEntropyOptions, FocalOptions


class CrossEntropy(Loss):
    """``cross_entropy``: -log of the true class's softmax; a mean weighted by class where there are weights.

    Reads ``output["logits"]`` [B, C] and ``targets["label"]``, int64 [B] or the classes' probabilities, float [B, C].
    With probabilities t, class weights w and label smoothing s it is the sum over images and classes of
    w (t (1 - s) + s / C) (-log p), over that of w t: an image of mixed classes weighs what these weigh in proportion,
    and one-hot rows give what class ids give. "balanced" weights are those of the training split, however its images
    are mixed. Label smoothing as in Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016.
    """

    weight: Tensor | None

    def __init__(self, options: CrossEntropyOptions, context: LossContext) -> None:
        super().__init__()
        self.label_smoothing = options.label_smoothing
        weight = class_weights(options.class_weights, context.task.labels, _balanced(context))
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        logits, label = output["logits"].float(), batch.targets["label"]
        if label.is_floating_point():
            # Of probabilities torch's mean is over images, whatever the weights of their classes.
            total = F.cross_entropy(logits, label, self.weight, reduction="sum", label_smoothing=self.label_smoothing)
            return {"cross_entropy": total / _weight_of(label, self.weight)}
        loss = F.cross_entropy(logits, label, weight=self.weight, label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss}


class Focal(Loss):
    """``focal``: cross-entropy times (1 - p_t)^gamma, where p_t is the probability of what is true.

    Reads ``output["logits"]`` [B, C] and ``targets["label"]`` (softmax form) or ``targets["labels"]`` float [B, C]
    (sigmoid form, in which `alpha` weighs positives and 1 - alpha negatives). The result is the mean, weighted by class
    where there are weights, so that gamma 0 is plain (binary) cross-entropy. ``label`` is int64 [B], or the classes'
    probabilities, float [B, C]: an image's loss is then what it is for each class, weighted by the class's probability,
    and so it is with ``labels`` between 0 and 1. Lin et al., "Focal Loss for Dense Object Detection", 2017.
    """

    weight: Tensor | None

    def __init__(self, options: FocalOptions, context: LossContext) -> None:
        super().__init__()
        if options.alpha is not None and not context.task.multi_label:
            raise FtengineError(
                "focal: alpha weighs positives against negatives, which only a multi-label task has; "
                "use class_weights for a single-label one"
            )
        self.gamma = options.gamma
        self.alpha = options.alpha
        self.multi_label = context.task.multi_label
        weight = class_weights(options.class_weights, context.task.labels, _balanced(context))
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        logits = output["logits"].float()
        if self.multi_label:
            labels = batch.targets["labels"].float()
            positive, negative = labels * self.focus(F.softplus(-logits)), (1 - labels) * self.focus(F.softplus(logits))
            if self.alpha is not None:
                positive, negative = self.alpha * positive, (1 - self.alpha) * negative
            loss = positive + negative
            mean = loss.mean() if self.weight is None else (loss * self.weight).sum() / (len(loss) * self.weight.sum())
            return {"focal": mean}
        label = batch.targets["label"]
        if label.is_floating_point():
            each = label * self.focus(-F.log_softmax(logits, dim=1))
            total = each.sum() if self.weight is None else (each * self.weight).sum()
            return {"focal": total / _weight_of(label, self.weight)}
        loss = self.focus(F.cross_entropy(logits, label, reduction="none"))
        if self.weight is None:
            return {"focal": loss.mean()}
        weight = self.weight[label]
        return {"focal": (loss * weight).sum() / weight.sum()}

    def focus(self, cross_entropy: Tensor) -> Tensor:
        """`cross_entropy` times (1 - p_t)^gamma; p_t is exp(-cross_entropy)."""
        # The floor keeps the power's gradient finite for gamma < 1 where p_t rounds to 1.
        missing = (-torch.expm1(-cross_entropy)).clamp_min(1e-8)
        return cross_entropy * missing**self.gamma


class BinaryCrossEntropy(Loss):
    """``binary_cross_entropy``: the mean over images and classes of each class's sigmoid cross-entropy.

    Reads ``output["logits"]`` [B, C] and ``targets["labels"]`` float [B, C], in 0..1. With label smoothing s a target t
    is t (1 - s) + s / 2.
    """

    pos_weight: Tensor | None

    def __init__(self, options: BinaryCrossEntropyOptions, context: LossContext) -> None:
        super().__init__()
        self.label_smoothing = options.label_smoothing
        task = context.task
        balanced = (task.samples - task.counts) / task.counts
        if options.pos_weight == "balanced" and (balanced == 0).any():
            name = task.labels.names[int(balanced.argmin())]
            raise FtengineError(
                f"pos_weight: 'balanced' needs samples with and without each class; every training sample has {name!r}"
            )
        weight = class_weights(options.pos_weight, task.labels, balanced, option="pos_weight")
        self.register_buffer("pos_weight", weight, persistent=False)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        labels = batch.targets["labels"].float()
        smooth = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss = F.binary_cross_entropy_with_logits(output["logits"].float(), smooth, pos_weight=self.pos_weight)
        return {"binary_cross_entropy": loss}


def class_weights(
    given: Literal["balanced"] | list[float] | Mapping[str, float] | None,
    labels: LabelMap,
    balanced: np.ndarray,
    option: str = "class_weights",
) -> Tensor | None:
    """The weights of `labels` as float32 [C], or None for none; `balanced` is what that word stands for."""
    if given is None:
        return None
    if given == "balanced":
        return torch.as_tensor(balanced, dtype=torch.float32)
    if isinstance(given, Mapping):
        for name in given:
            if name not in labels.names:
                raise FtengineError(f"{option}: {unknown('class', name, labels.names)}")
        return torch.tensor([given.get(name, 1.0) for name in labels.names], dtype=torch.float32)
    if len(given) != len(labels):
        raise FtengineError(
            f"{option}: {len(given)} weights for {len(labels)} classes; expected one for each of: "
            f"{', '.join(labels.names)}"
        )
    return torch.tensor(given, dtype=torch.float32)


def _weight_of(label: Tensor, weight: Tensor | None) -> Tensor:
    """What images weigh together whose classes have the probabilities `label` [B, C]; 1 each without `weight` [C]."""
    return label.sum() if weight is None else (label * weight).sum()  # no matrix product: autocast would round it


def _balanced(context: LossContext) -> np.ndarray:
    """n / (classes * count of the class), as scikit-learn's ``class_weight="balanced"``."""
    counts = context.task.counts
    return np.asarray(counts.sum() / (len(counts) * counts))
