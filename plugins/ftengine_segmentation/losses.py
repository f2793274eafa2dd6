"""Losses of segmentation: of each pixel by itself (cross-entropy, focal), and of how regions overlap.

All read ``output["logits"]`` [B, C, H, W] and ``targets["mask"]`` uint8 [B, H, W], and in training, where a head
gives them, ``output["aux_logits"]`` of the same shape, whose term is called ``aux_<term>``. All are computed in
float32, whatever type the logits have (float64 stays). A pixel whose target is 255 counts nowhere, in no sum and no
denominator; where nothing else is left, the loss is 0 with zero gradients.

The losses of segmentation-models-pytorch 0.6 are not used because they differ from their papers where a batch is not
full: its Dice, Jaccard and Tversky losses divide by all classes, so that a class that is absent counts as perfect;
its Tversky loss takes the power of the mean, with a NaN gradient where the mean is 0; its multi-class focal loss is
that of C sigmoids, not of a softmax, and NaN where all pixels are ignored; its Lovasz loss is then an empty tensor.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ftengine.errors import FtengineError, unknown
from ftengine.protocols import IGNORE, Batch, Loss, LossContext, Output
from ftengine_segmentation.options import (
    CrossEntropyOptions,
    FocalOptions,
    LossOptions,
    OverlapOptions,
    RegionOptions,
    TverskyOptions,
)

SMALLEST = 1e-8
"""Floor of what is raised to a power, whose gradient at 0 is infinite for a power below 1."""


class SegmentationLoss(Loss):
    """One term, `term`, of the logits, and one of the auxiliary logits. `weight`: float32 [C], None for all 1."""

    term: str
    weight: Tensor | None

    def __init__(self, options: LossOptions, context: LossContext) -> None:
        super().__init__()
        self.aux_weight = options.aux_weight
        self.register_buffer("weight", class_weights(options.class_weights, context.task), persistent=False)

    @abstractmethod
    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        """Float32 or float64 [B, C, H, W] and uint8 [B, H, W] to a scalar."""

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        target = batch.targets["mask"]
        terms = {self.term: self.value(_full(output["logits"]), target)}
        if self.training and self.aux_weight and "aux_logits" in output:
            terms[f"aux_{self.term}"] = self.aux_weight * self.value(_full(output["aux_logits"]), target)
        return terms


class CrossEntropy(SegmentationLoss):
    """``cross_entropy``: -log of the true class's softmax; a mean over pixels, weighted by class if there are weights.

    Equal to :func:`torch.nn.functional.cross_entropy`. Label smoothing as in Szegedy et al., "Rethinking the Inception
    Architecture for Computer Vision", 2016.
    """

    term = "cross_entropy"

    def __init__(self, options: CrossEntropyOptions, context: LossContext) -> None:
        super().__init__(options, context)
        self.label_smoothing = options.label_smoothing

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        label = target.long()
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        # Summed by `sum`, not by `cross_entropy`: on a GPU its own sum over pixels has no fixed order.
        losses = F.cross_entropy(
            logits, label, weight, ignore_index=IGNORE, reduction="none", label_smoothing=self.label_smoothing
        )
        return _ratio(losses.sum(), pixel_weights(label, self.weight).sum())


class Focal(SegmentationLoss):
    """``focal``: cross-entropy times (1 - p)^gamma, where p is the softmax of what is true.

    A mean over pixels, weighted by class where there are weights (the paper's alpha), so that gamma 0 is plain
    cross-entropy. Lin et al., "Focal Loss for Dense Object Detection", 2017.
    """

    term = "focal"

    def __init__(self, options: FocalOptions, context: LossContext) -> None:
        super().__init__(options, context)
        self.gamma = options.gamma

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        label = target.long()
        losses = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
        missing = (-torch.expm1(-losses)).clamp_min(SMALLEST)  # 1 - p
        weights = pixel_weights(label, self.weight)
        return _ratio((losses * missing**self.gamma * weights).sum(), weights.sum())


class RegionLoss(SegmentationLoss):
    """A loss of each class's region, in each image or in the whole batch.

    The value is the mean, weighted by class where there are weights, over the classes that occur in the truth: the
    false positives of one that does not are false negatives of others. With ``per_image`` it is the mean of the
    images' values, without those that have no pixel to learn from.
    """

    def __init__(self, options: RegionOptions, context: LossContext) -> None:
        super().__init__(options, context)
        self.per_image = options.per_image

    def mean(self, losses: Tensor, pixels: Tensor, weight: Tensor | None) -> Tensor:
        """Losses [G, C] of the classes in each of G groups of pixels, and their true pixels, int64 [G, C]."""
        weights = (pixels > 0) * (1.0 if weight is None else weight)
        each = _ratio((losses * weights).sum(1), weights.sum(1))
        return _ratio(each.sum(), (weights.sum(1) > 0).sum())


class Overlap(RegionLoss):
    """1 - (tp + s) / (tp + alpha fp + beta fn + s) of each class, to the power gamma.

    tp, fp and fn are sums of the softmax over pixels, and s is `smooth`. As `term` says, it is
    ``dice`` (alpha = beta = 1/2; Milletari et al., "V-Net", 2016, without the squares), ``jaccard`` (alpha = beta = 1;
    Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation", 2016) or
    ``tversky`` (Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep
    networks", 2017; gamma is 1 / gamma in Abraham and Khan, "A Novel Focal Tversky Loss Function", 2019).
    """

    def __init__(
        self, term: str, options: OverlapOptions, context: LossContext, alpha: float, beta: float, gamma: float = 1.0
    ) -> None:
        super().__init__(options, context)
        self.term = term
        self.smooth = options.smooth
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        probability = logits.softmax(1)
        # As booleans, a quarter of the memory of a one-hot float; no class is 255.
        truth = target[:, None] == torch.arange(logits.shape[1], device=target.device)[:, None, None]
        tp = torch.where(truth, probability, 0).sum((2, 3))
        predicted = (probability * (target != IGNORE)[:, None]).sum((2, 3))
        pixels = truth.sum((2, 3))
        if not self.per_image:
            tp, predicted, pixels = (count.sum(0, keepdim=True) for count in (tp, predicted, pixels))
        mistakes = self.alpha * (predicted - tp) + self.beta * (pixels - tp)
        losses = mistakes / (tp + mistakes + self.smooth).clamp_min(SMALLEST)
        if self.gamma != 1:
            losses = losses.clamp_min(SMALLEST) ** self.gamma
        return self.mean(losses, pixels, self.weight)


class Lovasz(RegionLoss):
    """``lovasz``: the Lovász extension of 1 - IoU at each class's errors |truth - softmax|.

    Berman et al., "The Lovász-Softmax loss: A tractable surrogate for the optimization of the intersection-over-union
    measure in neural networks", 2018, with classes="present".
    """

    term = "lovasz"

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        groups = len(target) if self.per_image else 1
        target = target.reshape(groups, -1)
        ignored = target == IGNORE
        classes = self._occurring(target, logits.shape[1])
        probability = logits.softmax(1).unbind(1)
        losses, pixels = [], []
        for index in classes:
            truth = target == index
            positive = probability[index].reshape(groups, -1)
            errors = torch.where(truth, 1 - positive, positive)
            losses.append((errors * lovasz_slopes(errors.detach(), truth, ignored)).sum(1))
            pixels.append(truth.sum(1))
        weight = None if self.weight is None else self.weight[classes]
        return self.mean(torch.stack(losses, 1), torch.stack(pixels, 1), weight)

    def _occurring(self, target: Tensor, classes: int) -> list[int]:
        """The classes to sort the pixels for, which is what takes long; at least one, so that there is a gradient."""
        counts = torch.bincount(target.reshape(-1), minlength=256)[:classes]
        return counts.nonzero().flatten().tolist() or [0]  # a synchronisation point


@torch.no_grad()
def lovasz_slopes(errors: Tensor, truth: Tensor, ignored: Tensor) -> Tensor:
    """By how much 1 - IoU grows at each pixel when pixels become wrong in order of their errors; all [G, P].

    The Lovász extension is linear around `errors` with these slopes, 0 for ignored pixels. They are not differences of
    1 - IoU, as in the paper's Algorithm 1, which lose most of their digits when there are many pixels, but what these
    come to: with I true pixels not yet wrong of a union of U, a true pixel adds 1 / U, another I / (U (U - 1)).
    """
    order = errors.masked_fill(ignored, -1).argsort(1, descending=True)  # what is ignored comes last: I is 0 there
    true = truth.gather(1, order)
    pixels = true.sum(1, keepdim=True)
    intersection = pixels - true.cumsum(1)
    union = pixels + (~true).cumsum(1)
    dtype = errors.dtype
    slopes = torch.where(true, 1 / union.to(dtype), intersection / (union * (union - 1)).clamp_min(1).to(dtype))
    return torch.empty_like(slopes).scatter_(1, order, slopes)


def dice(options: OverlapOptions, context: LossContext) -> Overlap:
    return Overlap("dice", options, context, alpha=0.5, beta=0.5)


def jaccard(options: OverlapOptions, context: LossContext) -> Overlap:
    return Overlap("jaccard", options, context, alpha=1.0, beta=1.0)


def tversky(options: TverskyOptions, context: LossContext) -> Overlap:
    return Overlap("tversky", options, context, options.alpha, options.beta, options.gamma)


def pixel_weights(label: Tensor, weight: Tensor | None) -> Tensor:
    """The weight of each pixel in a mean: that of its class, or 1; 0 where it is ignored."""
    if weight is None:
        return label != IGNORE
    return F.pad(weight, (0, IGNORE + 1 - len(weight)))[label]


def class_weights(given: Literal["balanced"] | list[float] | Mapping[str, float] | None, task: Any) -> Tensor | None:
    """The weights of the classes of `task` as float32 [C], or None for none."""
    names: tuple[str, ...] = task.labels.names
    if given is None:
        return None
    if given == "balanced":
        return _balanced(task)
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise FtengineError(f"class_weights: {unknown('class', name, names)}")
        given = [given.get(name, 1.0) for name in names]
    if len(given) != len(names):
        raise FtengineError(
            f"class_weights: {len(given)} weights for {len(names)} classes; expected one for each of: "
            f"{', '.join(names)}"
        )
    if not any(given):
        raise FtengineError("class_weights: all are 0; expected at least one above 0")
    return torch.tensor(given, dtype=torch.float32)


def _balanced(task: Any) -> Tensor:
    """n / (classes * pixels of the class), as scikit-learn's ``class_weight="balanced"``: over all pixels a mean of 1.

    Classes without training pixels are not among them, and weigh 1, which only a validation loss can show.
    """
    if task.pixels is None:
        raise FtengineError(
            "class_weights: 'balanced' needs the training pixels of each class, which were not counted; "
            "write `task: {name: segmentation, count_pixels: true}`, or give a list or a mapping of weights"
        )
    pixels = torch.as_tensor(task.pixels)
    present = pixels > 0
    return torch.where(present, pixels.sum() / (present.sum() * pixels), 1.0)


def _full(logits: Tensor) -> Tensor:
    """Logits in float32, or in float64 if they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _ratio(total: Tensor, weight: Tensor) -> Tensor:
    """`total` / `weight`, and 0 with zero gradients where `weight` is 0."""
    return total / torch.where(weight > 0, weight, math.inf)
