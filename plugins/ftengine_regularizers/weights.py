"""Regularizers of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ftengine.protocols import Regularizer, RegularizerContext
from ftengine_regularizers.plugin import L1Options


class L1(Regularizer):
    """strength * sum |w| over every parameter that trains."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def of_weights(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``l1``, a scalar."""
        return {"l1": self.strength * torch.stack([p.abs().sum() for p in parameters.values()]).sum()}


def l1(options: L1Options, context: RegularizerContext) -> L1:
    """The lasso's term."""
    return L1(options.strength)
