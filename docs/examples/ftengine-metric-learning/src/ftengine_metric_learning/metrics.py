"""Metrics of embeddings, over a whole split: every one reads ``prediction["embedding"]``, float32 [size].

A split's embeddings are all kept. Closeness is the cosine of the angle between two embeddings, of any length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from torch.nn import functional as F

from ftengine.protocols import Metric, MetricContext, Prediction, Targets
from ftengine_metric_learning.options import RetrievalOptions, VerificationOptions

BLOCK = 1024
"""How many images ask at once; each has a row of cosines with all others."""


class EmbeddingMetric(Metric):
    """Collects embeddings and labels, in the order of the split."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._embeddings: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, predictions: Sequence[Prediction], targets: Targets) -> None:
        if predictions:
            self._embeddings.append(torch.stack([prediction["embedding"] for prediction in predictions]))
            self._labels.append(targets["label"].clone())

    def merge(self, other: Metric) -> None:
        if not isinstance(other, type(self)):
            raise TypeError(f"cannot merge {type(other).__name__} into {type(self).__name__}")
        self._embeddings += other._embeddings
        self._labels += other._labels

    def collected(self) -> tuple[Tensor, Tensor]:
        """Embeddings of length 1, float32 [N, size], and labels, int64 [N]."""
        if not self._labels:
            return torch.empty(0, 1), torch.empty(0, dtype=torch.int64)
        return F.normalize(torch.cat(self._embeddings).float()), torch.cat(self._labels)


class Retrieval(EmbeddingMetric):
    """Each image asks for the others of its class, R of them; all other images of the split are ranked by closeness.

    ``recall_at_<k>``: the part of the images with one of their class among the first k. ``map_at_r``: the mean over
    images of 1/R times the sum, over the ranks i up to R that hold one of their class, of the precision of the first
    i (Musgrave et al., "A Metric Learning Reality Check", 2020). An image alone in its class asks for nothing and
    does not count; where all are alone, the values are NaN.
    """

    def __init__(self, options: RetrievalOptions, context: MetricContext) -> None:
        super().__init__()
        self.k = tuple(sorted({1, *options.k}))

    def compute(self) -> dict[str, float]:
        embeddings, labels = self.collected()
        wanted = (labels[:, None] == labels.unique()).sum(0)[torch.unique(labels, return_inverse=True)[1]] - 1
        asking = (wanted > 0).nonzero().flatten()
        if not len(asking) or not embeddings.isfinite().all():
            return {f"recall_at_{k}": math.nan for k in self.k} | {"map_at_r": math.nan}
        length = min(max(int(wanted.max()), self.k[-1]), len(labels) - 1)
        ranks = torch.arange(1, length + 1)
        found, precision = torch.zeros(len(self.k), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for block in asking.split(BLOCK):
            cosines = embeddings[block] @ embeddings.T
            cosines[torch.arange(len(block)), block] = -math.inf
            right = labels[cosines.topk(length).indices] == labels[block, None]
            found += torch.stack([right[:, :k].any(1).sum() for k in self.k])
            within = right & (ranks <= wanted[block, None])
            each = (within * within.cumsum(1) / ranks.double()).sum(1)
            precision += (each / wanted[block]).sum()
        values = {f"recall_at_{k}": value for k, value in zip(self.k, (found / len(asking)).tolist(), strict=True)}
        return values | {"map_at_r": float(precision) / len(asking)}


class Verification(EmbeddingMetric):
    """Whether two images are of one class, said from their closeness: of `pairs` drawn pairs, half are.

    ``verification_auc``: the area under the ROC curve. ``verification_accuracy``: the part of right answers at the
    best threshold, which is chosen on these same pairs. ``verification_tar``: the greatest part of the pairs of one
    class that are accepted at a threshold where at most the part `far` of the others is. Which pairs are drawn, with
    replacement, follows from `seed` and the labels in the order of the split. NaN where there are no pairs of a kind.
    """

    def __init__(self, options: VerificationOptions, context: MetricContext) -> None:
        super().__init__()
        self.options = options

    def compute(self) -> dict[str, float]:
        curve = self._curve()
        if curve is None:
            return dict.fromkeys(("verification_auc", "verification_accuracy", "verification_tar"), math.nan)
        auc, false, true, _ = curve
        return {
            "verification_auc": auc,
            "verification_accuracy": float((true + 1 - false).max() / 2),
            "verification_tar": float(true[false <= self.options.far].max()),
        }

    def details(self) -> dict[str, Any]:
        """``threshold``: the cosine from which on two images are best said to be of one class."""
        curve = self._curve()
        if curve is None:
            return {}
        _, false, true, thresholds = curve
        return {"threshold": float(thresholds[1:][(true - false)[1:].argmax()])}  # the first is infinite

    def _curve(self) -> tuple[float, np.ndarray, np.ndarray, np.ndarray] | None:
        """Area, rates of false and of true accepts, and the thresholds of these, falling."""
        embeddings, labels = self.collected()
        pairs = draw_pairs(labels.numpy(), self.options.pairs // 2, self.options.seed)
        if pairs is None or not embeddings.isfinite().all():
            return None
        first, second = (torch.from_numpy(side) for side in pairs)
        cosines = (embeddings[first] * embeddings[second]).sum(1).numpy()
        same = np.arange(len(cosines)) < len(cosines) // 2
        return float(roc_auc_score(same, cosines)), *roc_curve(same, cosines, drop_intermediate=False)


def draw_pairs(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Both sides, int [2 * count] each, of `count` pairs of one class and as many of two; None where there are none.

    The first side is drawn evenly among the images that have a partner, the second evenly among the partners.
    """
    order = np.argsort(labels, kind="stable")
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    start, size = (np.cumsum(sizes) - sizes)[inverse], sizes[inverse]  # where in `order` an image's class lies
    paired = np.flatnonzero(size > 1)
    if not len(paired) or len(sizes) < 2:
        return None
    generator = np.random.default_rng(seed)
    one = generator.choice(paired, count)
    step = generator.integers(1, size[one])
    partner = order[start[one] + (place[one] - start[one] + step) % size[one]]
    other = generator.integers(0, len(labels), count)
    skip = generator.integers(0, len(labels) - size[other])
    stranger = order[np.where(skip < start[other], skip, skip + size[other])]
    return np.concatenate([one, other]), np.concatenate([partner, stranger])
