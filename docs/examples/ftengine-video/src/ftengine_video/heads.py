"""The head of action recognition."""

from __future__ import annotations

from torch import Tensor, nn

from ftengine.protocols import Batch, Head, HeadContext, Output, Prediction
from ftengine_video.options import ActionOptions


class Action(Head):
    """The last level's mean over time and space, dropout, and a linear layer: ``{"logits": [B, C]}``.

    `predict` returns ``{"scores": float32 [C]}`` for each clip: the softmax, or, where a clip may be of several
    classes, each one's sigmoid.
    """

    def __init__(self, options: ActionOptions, context: HeadContext) -> None:
        super().__init__()
        self.level, channels = list(context.channels.items())[-1]
        self.multi_label = context.task.multi_label
        self.classifier = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(channels, len(context.task.labels)))

    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        return {"logits": self.classifier(features[self.level].mean((2, 3, 4)))}

    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        logits = output["logits"].detach().float()
        scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        return [{"scores": row} for row in scores.cpu()]
