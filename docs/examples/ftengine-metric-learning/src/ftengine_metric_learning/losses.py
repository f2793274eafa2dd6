"""The losses of pytorch-metric-learning, as losses of the engine."""

from __future__ import annotations

import torch
from pytorch_metric_learning import distances, losses, miners
from torch import Tensor, nn

from ftengine.errors import FtengineError
from ftengine.protocols import Batch, Loss, LossContext, Output
from ftengine_metric_learning.options import ArcFaceOptions, ContrastiveOptions, TripletOptions

DISTANCES = {"euclidean": distances.LpDistance, "cosine": distances.CosineSimilarity}


class LibraryLoss(Loss):
    """`inner`, a loss of the library, as the term `name`; `miner` chooses the triplets that it is taken over.

    Reads ``output["embedding"]`` [B, size] and ``targets["label"]`` int64 [B]. Computed in float32, also under
    autocast. What a miner draws comes from torch's generators, which the engine seeds before each step.
    """

    def __init__(self, name: str, inner: nn.Module, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.name = name
        self.inner = inner
        self.miner = miner

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        embedding, label = output["embedding"].float(), batch.targets["label"]
        with torch.autocast(embedding.device.type, enabled=False):
            chosen = None if self.miner is None else self.miner(embedding, label)
            return {self.name: self.inner(embedding, label, chosen)}


class ArcFace(losses.ArcFaceLoss):
    """The library's, with a finite gradient where an embedding points exactly in its class's direction, or away."""

    LIMIT = 1 - 1e-6

    def get_angles(self, cosine_of_target_classes: Tensor) -> Tensor:
        return super().get_angles(cosine_of_target_classes.clamp(-self.LIMIT, self.LIMIT))


def arcface(options: ArcFaceOptions, context: LossContext) -> LibraryLoss:
    """``arcface``: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019.

    Its weights, ``inner.W`` [size, classes], are learnt with the model's and are part of it.
    """
    size = getattr(context.head, "size", None)
    if size is None:
        raise FtengineError(
            f"arcface: the head {type(context.head).__name__} does not say how many numbers its embeddings have; "
            "expected an attribute `size`"
        )
    return LibraryLoss("arcface", ArcFace(len(context.task.labels), size, margin=options.margin, scale=options.scale))


def triplet(options: TripletOptions, context: LossContext) -> LibraryLoss:
    """``triplet``: the mean over the chosen triplets within the margin; 0 where there are none.

    Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015; ``batch_hard`` is Hermans
    et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017; ``distance_weighted`` Wu et al.,
    "Sampling Matters in Deep Embedding Learning", 2017.
    """
    distance = DISTANCES[options.distance]()
    miner: nn.Module | None = None
    if options.miner == "batch_hard":
        miner = miners.BatchHardMiner(distance=distance)
    elif options.miner == "distance_weighted":
        miner = miners.DistanceWeightedMiner(distance=distance)
    elif options.miner != "all":
        miner = miners.TripletMarginMiner(options.margin, options.miner, distance=distance)
    return LibraryLoss("triplet", losses.TripletMarginLoss(options.margin, distance=distance), miner)


def contrastive(options: ContrastiveOptions, context: LossContext) -> LibraryLoss:
    """``contrastive``: the mean over the pairs of a class that are too far apart, and that over others too close.

    Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", 2006; distances are not squared.
    """
    return LibraryLoss("contrastive", losses.ContrastiveLoss(options.pos_margin, options.neg_margin))
