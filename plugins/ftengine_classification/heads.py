"""Heads that pool the last feature level and give one logit for each class."""

from __future__ import annotations

from torch import Tensor, nn

from ftengine.protocols import Batch, Head, HeadContext, Output, Prediction
from ftengine_classification.options import LinearOptions, MlpOptions

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class ClassificationHead(Head):
    """Mean over the last level's positions, then `classifier`, [B, channels] -> [B, C].

    `forward` returns ``{"logits": [B, C]}``, in the autocast type. `predict` returns ``{"scores": float32 [C]}``
    for each image: the softmax, which sums to 1, or for a multi-label task each class's own sigmoid.
    """

    def __init__(self, level: str, classifier: nn.Module, multi_label: bool) -> None:
        super().__init__()
        self.level = level
        self.classifier = classifier
        self.multi_label = multi_label

    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        return {"logits": self.classifier(features[self.level].mean((2, 3)))}

    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        logits = output["logits"].detach().float()
        scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        # One transfer for the whole batch; the rows are views of it.
        return [{"scores": row} for row in scores.cpu()]


def linear(options: LinearOptions, context: HeadContext) -> ClassificationHead:
    """Dropout and one linear layer."""
    level, channels = list(context.channels.items())[-1]
    layer = nn.Linear(channels, len(context.task.labels))
    classifier = nn.Sequential(nn.Dropout(options.dropout), layer)
    return ClassificationHead(level, classifier, context.task.multi_label)


def mlp(options: MlpOptions, context: HeadContext) -> ClassificationHead:
    """Hidden layers, each with activation and dropout, and a linear layer.

    Not torchvision's MLP: it drops out of its last layer, too, which here would be logits.
    """
    level, channels = list(context.channels.items())[-1]
    layers: list[nn.Module] = []
    for width in options.hidden:
        layers += [nn.Linear(channels, width), ACTIVATIONS[options.activation](), nn.Dropout(options.dropout)]
        channels = width
    layers.append(nn.Linear(channels, len(context.task.labels)))
    return ClassificationHead(level, nn.Sequential(*layers), context.task.multi_label)
