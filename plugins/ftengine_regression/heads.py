"""Heads that pool the last feature level and give one number for each target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftengine.protocols import Batch, Head, HeadContext, Output, Prediction
from ftengine_regression.options import LinearOptions, MlpOptions
from ftengine_regression.task import Regression

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
MAX_FLOAT32 = torch.finfo(torch.float32).max


class Standardizer(nn.Module):
    """Original units to the space that is learned, and back.

    Its buffers, all [T] and stored with the model: `mean` and `std` float32, and `log`, `log1p` bool, which
    targets are transformed first.
    """

    mean: Tensor
    std: Tensor
    log: Tensor
    log1p: Tensor

    def __init__(self, task: Regression) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(task.mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(task.std, dtype=torch.float32))
        self.register_buffer("log", torch.tensor([kind == "log" for kind in task.transforms]))
        self.register_buffer("log1p", torch.tensor([kind == "log1p" for kind in task.transforms]))

    def forward(self, values: Tensor) -> Tensor:
        """Original units, [B, T], to standardised ones, float32 [B, T]."""
        values = values.float()
        values = torch.where(self.log, values.log(), torch.where(self.log1p, values.log1p(), values))
        return (values - self.mean) / self.std

    def inverse(self, standardized: Tensor) -> Tensor:
        """Standardised units, [B, T], to original ones, float32 [B, T].

        What lies beyond float32's range becomes its largest value, so that one wild prediction early in training
        is a large error and not an infinite one. NaN stays NaN.
        """
        values = standardized.float() * self.std + self.mean
        values = torch.where(self.log, values.exp(), torch.where(self.log1p, values.expm1(), values))
        return values.clamp(-MAX_FLOAT32, MAX_FLOAT32)


class RegressionHead(Head):
    """Mean over the last level's positions, then `regressor`, [B, channels] -> [B, T].

    `forward` returns ``{"standardized": [B, T]}``, in the autocast type, and where the batch has ``values`` also
    ``{"standardized_targets": float32 [B, T]}``. `predict` returns ``{"values": float32 [T]}`` for each image, in
    original units.
    """

    def __init__(self, level: str, regressor: nn.Module, task: Regression) -> None:
        super().__init__()
        self.level = level
        self.regressor = regressor
        self.standardizer = Standardizer(task)

    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        output = {"standardized": self.regressor(features[self.level].mean((2, 3)))}
        if "values" in batch.targets:
            output["standardized_targets"] = self.standardizer(batch.targets["values"])
        return output

    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        values = self.standardizer.inverse(output["standardized"].detach())
        # One transfer for the whole batch; the rows are views of it.
        return [{"values": row} for row in values.cpu()]


def linear(options: LinearOptions, context: HeadContext) -> RegressionHead:
    """Dropout and one linear layer."""
    level, channels = list(context.channels.items())[-1]
    layer = nn.Linear(channels, len(context.task.names))
    return RegressionHead(level, nn.Sequential(nn.Dropout(options.dropout), layer), context.task)


def mlp(options: MlpOptions, context: HeadContext) -> RegressionHead:
    """Hidden layers, each with activation and dropout, and a linear layer.

    Not torchvision's MLP: it drops out of its last layer, too, which here would be the predicted values.
    """
    level, channels = list(context.channels.items())[-1]
    layers: list[nn.Module] = []
    for width in options.hidden:
        layers += [nn.Linear(channels, width), ACTIVATIONS[options.activation](), nn.Dropout(options.dropout)]
        channels = width
    layers.append(nn.Linear(channels, len(context.task.names)))
    return RegressionHead(level, nn.Sequential(*layers), context.task)
