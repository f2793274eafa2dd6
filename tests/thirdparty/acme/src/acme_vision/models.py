"""The backbone and the head."""

import torch
from torch import nn
from torch.nn import functional as F

from ftengine.protocols import Backbone, Head


class Tiny(Backbone):
    """Three stages, each a convolution of stride 2, a normalisation and a ReLU."""

    def __init__(self, options, context):
        channels = {f"c{i + 1}": options.width * 2**i for i in range(3)}
        stages = {}
        before = 3
        for name, width in channels.items():
            norm = nn.BatchNorm2d(width) if options.norm == "batch" else nn.Identity()
            stages[name] = nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), norm, nn.ReLU())
            before = width
        super().__init__(stages, channels, {"c1": 2, "c2": 4, "c3": 8})


class Prototypes(Head):
    """``logits``: `scale` times the cosine of the pooled features and each class's prototype."""

    def __init__(self, options, context):
        super().__init__()
        channels = list(context.channels.values())[-1]
        self.prototypes = nn.Parameter(torch.randn(len(context.task.labels), channels))
        self.scale = options.scale

    def forward(self, features, batch):
        pooled = list(features.values())[-1].mean((2, 3))
        cosines = F.normalize(pooled, dim=-1) @ F.normalize(self.prototypes, dim=-1).T
        return {"logits": self.scale * cosines}

    def predict(self, output, batch):
        return [{"scores": row} for row in output["logits"].detach().float().softmax(-1).cpu()]
