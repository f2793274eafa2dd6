"""Losses of regression, over standardised targets. All are computed in float32, whatever type the outputs have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ftengine.errors import FtengineError, unknown
from ftengine.protocols import Batch, Loss, LossContext, Output
from ftengine_regression.options import HuberOptions, LossOptions


class StandardizedLoss(Loss):
    """One term, `name`: the mean of `errors` over images and targets; over targets weighted, where there are weights.

    Reads ``output["standardized"]`` and ``output["standardized_targets"]``, both [B, T]. `errors` takes the two
    in float32 and returns one error for each number, [B, T].
    """

    weights: Tensor | None

    def __init__(
        self,
        name: str,
        errors: Callable[[Tensor, Tensor], Tensor],
        weights: Sequence[float] | Mapping[str, float] | None,
        names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.name = name
        self.errors = errors
        self.register_buffer("weights", target_weights(name, weights, names), persistent=False)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        errors = self.errors(output["standardized"].float(), output["standardized_targets"].float())
        loss = errors.mean() if self.weights is None else (errors.mean(0) * self.weights).sum() / self.weights.sum()
        return {self.name: loss}


def mse(options: LossOptions, context: LossContext) -> StandardizedLoss:
    """``mse``: squared error."""
    return StandardizedLoss("mse", partial(F.mse_loss, reduction="none"), options.weights, context.task.names)


def l1(options: LossOptions, context: LossContext) -> StandardizedLoss:
    """``l1``: absolute error."""
    return StandardizedLoss("l1", partial(F.l1_loss, reduction="none"), options.weights, context.task.names)


def huber(options: HuberOptions, context: LossContext) -> StandardizedLoss:
    """``huber``: half the squared error up to `delta`, delta * (|error| - delta / 2) beyond it.

    Huber, "Robust Estimation of a Location Parameter", 1964.
    """
    errors = partial(F.huber_loss, reduction="none", delta=options.delta)
    return StandardizedLoss("huber", errors, options.weights, context.task.names)


def target_weights(
    loss: str, given: Sequence[float] | Mapping[str, float] | None, names: tuple[str, ...]
) -> Tensor | None:
    """The weights of the targets `names` as float32 [T], or None for none."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise FtengineError(f"{loss}: weights: {unknown('target', name, names)}")
        return torch.tensor([given.get(name, 1.0) for name in names], dtype=torch.float32)
    if len(given) != len(names):
        raise FtengineError(
            f"{loss}: weights: {len(given)} weights for {len(names)} targets; expected one for each of: "
            f"{', '.join(names)}"
        )
    return torch.tensor(given, dtype=torch.float32)
