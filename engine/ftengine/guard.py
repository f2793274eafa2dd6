"""Numbers that break: a loss or gradient that is not finite moves no weight, and is never met in silence.

No step waits for the device to find out. On a CPU there is nothing to wait for: the step is judged at once. On a GPU
a fused optimizer leaves the step out by itself, on the device, and what happened is read when the run synchronises
anyway: when it logs, and before it evaluates or saves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ftengine.config_faults import NonFiniteConfig
from ftengine.errors import TrainingError


@dataclass
class Computed:
    """The loss of one part of a batch, `share` of it, with its terms, scalars on the device; and its samples' ids."""

    ids: list[str]
    loss: Tensor
    terms: Mapping[str, Tensor]
    share: float


@dataclass
class Judged:
    """One step: whether it was `broken`, bool scalar on the device."""

    step: int
    broken: Tensor
    norm: Tensor
    parts: Sequence[Computed]


@dataclass
class NumberGuard:
    """Says of each step whether its numbers were finite; `left_out` counts the steps of the run that were not.

    `on_device`: the optimizer leaves broken steps out by itself, and `judge` does not wait.
    """

    steps_per_epoch: int
    config: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    on_device: bool = False
    left_out: int = 0
    waiting: list[Judged] = field(default_factory=list)

    def judge(self, step: int, broken: Tensor, norm: Tensor, parts: Sequence[Computed]) -> bool:
        """Whether the step is to be taken; `norm` is the gradient's. Call `check` where it is False."""
        self.waiting.append(Judged(step, broken, norm, parts))
        if self.on_device:
            return True
        if bool(broken):
            return False
        self.waiting.clear()
        return True

    def check(self) -> list[str]:
        """Look at every step since the last check, a synchronisation point on a GPU: what is to be said of each.

        Raises TrainingError for the first broken one if the policy is ``stop``, and for one too many.
        """
        if not self.waiting:
            return []
        waiting, self.waiting = self.waiting, []
        broken = torch.stack([judged.broken for judged in waiting]).tolist()
        said = []
        for judged, bad in zip(waiting, broken, strict=True):
            if bad:
                self.left_out += 1
                text = self._describe(judged)
                if self.config.policy == "stop":
                    raise TrainingError(text + CAUSES)
                if self.left_out > self.config.limit:
                    raise TrainingError(
                        f"{text}{CAUSES}\n  {self.config.limit} steps were left out before: that is the limit of "
                        "train.on_non_finite"
                    )
                said.append(text)
        return said

    def _describe(self, judged: Judged) -> str:
        bad = [part for part in judged.parts if not bool(part.loss.isfinite())]
        terms = {name: value for part in bad or judged.parts for name, value in part.terms.items()}
        values = ", ".join(f"{name} {float(value):g}" for name, value in terms.items())
        what = f"the {'loss' if bad else 'gradient'} is not finite"
        ids = [name for part in bad or judged.parts for name in part.ids]
        at = f"at step {judged.step + 1} (epoch {judged.step // self.steps_per_epoch + 1}): {values}"
        norm = "" if bad else f", gradient norm {float(judged.norm):g}"
        return f"{what} {at}{norm}\n  samples: {', '.join(ids)}"


CAUSES = (
    "\n  common causes: a learning rate that is too high, values in the targets that are far off, or "
    "fp16; train.clip_norm and a warm-up help"
)
