"""The head: features to embeddings of length 1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ftengine.protocols import Batch, Head, HeadContext, Output, Prediction
from ftengine_metric_learning.options import HeadOptions


class EmbeddingHead(Head):
    """The mean over the last level's positions, dropout, and a linear layer; the result has the Euclidean length 1.

    `forward` returns ``{"embedding": float32 [B, size]}``, `predict` a row of it for each image. A loss with weights
    of its own finds `size` here. There is no loss in evaluation: ArcFace has no direction for a class that training
    never saw, and over pairs and triplets a loss is no mean over images, of which batches of any size give the same.
    """

    loss_in_eval = False

    def __init__(self, level: str, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.level = level
        self.size = size
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, size))

    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        pooled = features[self.level].mean((2, 3))
        return {"embedding": F.normalize(self.project(pooled).float())}

    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        return [{"embedding": row} for row in output["embedding"].detach().float().cpu()]


def embedding(options: HeadOptions, context: HeadContext) -> EmbeddingHead:
    level, channels = list(context.channels.items())[-1]
    return EmbeddingHead(level, channels, options.size, options.dropout)
