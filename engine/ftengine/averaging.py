"""Averages of the weights over a run: the exponential moving one, and the stochastic one of its last epochs.

Both are torch's AveragedModel. What they average takes the place of the weights in evaluation and in the saved model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ftengine.config_train import EmaConfig, SwaConfig
from ftengine.model import Model, StreamBatch
from ftengine.precision import Precision


class Average:
    """`model` is the average, in eval mode; `updates` counts the models averaged in so far, and is saved with it.

    `kind` says of what sort it is. `ready`: there is an average to evaluate.
    """

    kind = ""

    def __init__(self, averaged: AveragedModel) -> None:
        self.updates = 0
        self._averaged = averaged
        self._averaged.requires_grad_(False)
        self.model.frozen_norms = []
        self.model.eval()

    @property
    def model(self) -> Model:
        return cast(Model, self._averaged.module)

    @property
    def ready(self) -> bool:
        return True

    def after_step(self, model: Model) -> None:
        """`model` has taken an optimizer step."""

    def after_epoch(self, model: Model, epoch: int) -> bool:
        """`model` has finished `epoch` epochs. True: the average is new, and its BatchNorm statistics are not its own.

        They are then to be taken anew, by :func:`refresh_norms`.
        """
        return False


class Ema(Average):
    """The exponential moving average, with the current buffers (BatchNorm's statistics) of the original."""

    kind = "ema"

    def __init__(self, model: Model, config: EmaConfig) -> None:
        self.config = config
        averaged = AveragedModel(model, multi_avg_fn=self._average)
        averaged.update_parameters(model)  # the first term, as it is
        super().__init__(averaged)

    def after_step(self, model: Model) -> None:
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


class Swa(Average):
    """The mean of the weights at the ends of the epochs after `start` (Izmailov et al. 2018)."""

    kind = "swa"

    def __init__(self, model: Model, config: SwaConfig, epochs: int) -> None:
        self.lr = config.lr
        self.first = math.floor(config.start * epochs)
        """Epochs that are over before the averaging begins."""
        super().__init__(AveragedModel(model, multi_avg_fn=self._average))

    @property
    def ready(self) -> bool:
        return self.updates > 0

    def after_epoch(self, model: Model, epoch: int) -> bool:
        """Average `model` in, if it is time."""
        if epoch <= self.first:
            return False
        if self.updates == epoch - self.first:  # it is, and the run was stopped before its statistics were taken
            return True
        self._averaged.n_averaged.fill_(self.updates)  # 0: AveragedModel copies; it may have been restored
        self._averaged.update_parameters(model)
        self.updates += 1
        return True

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], currents: Sequence[Tensor], _: Tensor | int) -> None:
        """In place, the mean of one more."""
        torch._foreach_lerp_(list(averages), list(currents), 1 / (self.updates + 1))


@torch.no_grad()
def refresh_norms(
    average: Model, model: Model, batches: Iterable[tuple[StreamBatch, Sequence[str]]], precision: Precision
) -> None:
    """Take the statistics of `average`'s BatchNorm layers anew: the means over `batches`, each with its tasks.

    Those of layers that are frozen in `model`, of which `average` is the average, stay; and all do as they were if
    something keeps it from its end.
    """
    frozen = set(map(id, model.frozen_norms))
    norms = [
        cast(nn.modules.batchnorm._BatchNorm, average.get_submodule(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and id(module) not in frozen
    ]
    if not norms:
        return
    average.eval()
    momenta = [norm.momentum for norm in norms]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
            norm.train()
        for batch, tasks in batches:
            with precision.autocast():
                average(batch.to(precision.device), tasks)
    except BaseException:
        for buffer, kept in before:
            buffer.copy_(kept)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        average.eval()
