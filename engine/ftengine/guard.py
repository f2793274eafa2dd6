"""Notices a loss that is not finite, without a synchronisation a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftengine.errors import TrainingError


@dataclass
class Watched:
    step: int
    ids: list[str]
    loss: Tensor
    terms: dict[str, Tensor]


class LossGuard:
    """Raises TrainingError with the step, the terms and the sample ids.

    On a CPU `watch` raises at once, before the gradient is computed. On a GPU the losses wait for the next `check`,
    which the run calls when it logs and before it evaluates or saves: nothing is saved after a bad step.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.waiting: list[Watched] = []

    def watch(self, step: int, ids: Sequence[str], loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Remember a loss, a scalar on the device, with the samples it came from."""
        self.waiting.append(Watched(step, list(ids), loss.detach(), {name: t.detach() for name, t in terms.items()}))
        if loss.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Look at every loss since the last check: a synchronisation point on a GPU."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        finite = torch.stack([watched.loss for watched in waiting]).isfinite().tolist()
        for watched, good in zip(waiting, finite, strict=True):
            if not good:
                terms = ", ".join(f"{name} {float(value):g}" for name, value in watched.terms.items())
                raise TrainingError(
                    f"the loss is not finite at step {watched.step + 1} "
                    f"(epoch {watched.step // self.steps_per_epoch + 1}): {terms}\n"
                    f"  samples: {', '.join(watched.ids)}\n"
                    "  common causes: a learning rate that is too high, values in the targets that are far off, or "
                    "fp16; train.clip_norm and a warm-up help"
                )
