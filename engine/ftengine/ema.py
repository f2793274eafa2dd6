"""The exponential moving average of the weights, on torch's AveragedModel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ftengine.config_train import EmaConfig
from ftengine.model import Model


class Ema:
    """`model` is the average, in eval mode, with the current buffers (BatchNorm's statistics) of the original.

    `updates` counts the models averaged in after the first; the decay's warm-up depends on it.
    """

    def __init__(self, model: Model, config: EmaConfig) -> None:
        self.config = config
        self.updates = 0
        self._averaged = AveragedModel(model, multi_avg_fn=self._average)
        self._averaged.update_parameters(model)  # the first term, as it is
        self._averaged.requires_grad_(False)
        self.model.frozen_norms = []
        self.model.eval()

    @property
    def model(self) -> Model:
        return cast(Model, self._averaged.module)

    def update(self, model: Model) -> None:
        """Average `model` in."""
        self.updates += 1
        self._averaged.update_parameters(model)

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], currents: Sequence[Tensor], _: Tensor | int) -> None:
        """In place, ``average = decay * average + (1 - decay) * current`` for all tensors at once."""
        decay = self.config.decay
        if self.config.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(averages), list(currents), 1 - decay)
