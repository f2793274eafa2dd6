"""Numbers that break: a loss or gradient that is not finite moves no weight, and is never met in silence.

No step waits for the device to find out. On a CPU there is nothing to wait for: the step is judged at once. On a GPU
a fused optimizer leaves the step out by itself, on the device, and what happened is read when the run synchronises
anyway: when it logs, and before it evaluates or saves. An optimizer without a fused form needs the answer, so there
every step waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

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
class Watched:
    """What is left to be said of one step, from 0: whether it was `broken`, bool scalar on the device.

    `whole`: the loss of the whole step, where `parts` are only those that this process has computed.
    """

    step: int
    broken: Tensor
    norm: Tensor
    parts: Sequence[Computed]
    whole: Sequence[Computed]


@dataclass(frozen=True)
class Fault:
    """A step, from 1, that was left out: `what` was not finite (``loss`` or ``gradient``), and of which samples.

    `values`: the loss terms that show it, and ``gradient_norm`` where the loss does not.
    """

    step: int
    epoch: int
    what: str
    values: Mapping[str, float]
    ids: Sequence[str]

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:g}" for name, value in self.values.items())
        where = f"at step {self.step} (epoch {self.epoch})"
        return f"the {self.what} is not finite {where}: {values}\n  samples: {', '.join(self.ids)}"


@dataclass
class NumberGuard:
    """Says of each step whether its numbers were finite; `left_out` counts the steps of the run that were not.

    `on_device`: the optimizer leaves broken steps out by itself, and nobody waits for the answer before `check`.
    """

    steps_per_epoch: int
    config: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    on_device: bool = False
    left_out: int = 0
    waiting: list[Watched] = field(default_factory=list)

    def check(self) -> tuple[list[Sequence[Computed]], list[Fault]]:
        """The loss of each good step since the last check, and every broken one; a synchronisation point on a GPU."""
        watched, self.waiting = self.waiting, []
        broken = torch.stack([one.broken for one in watched]).tolist() if watched else []
        good = [one.whole for one, bad in zip(watched, broken, strict=True) if not bad]
        faults = [self._fault(one) for one, bad in zip(watched, broken, strict=True) if bad]
        return good, faults

    def decide(self, faults: Sequence[Fault]) -> None:
        """Count `faults`; raises TrainingError for the first if the policy is ``stop``, and for one too many."""
        for fault in faults:
            if self.config.policy == "stop":
                raise TrainingError(f"{fault}{CAUSES}")
            self.left_out += 1
            if self.left_out > self.config.limit:
                raise TrainingError(
                    f"{fault}{CAUSES}\n  {self.config.limit} steps were left out before: that is the limit of "
                    "train.on_non_finite"
                )

    def _fault(self, watched: Watched) -> Fault:
        bad = [part for part in watched.parts if not bool(part.loss.isfinite())]
        shown = bad or watched.parts
        values = {name: float(value) for part in shown for name, value in part.terms.items()}
        if not bad:
            values["gradient_norm"] = float(watched.norm)
        ids = [name for part in shown for name in part.ids]
        epoch = watched.step // self.steps_per_epoch + 1
        return Fault(watched.step + 1, epoch, "loss" if bad else "gradient", values, ids)


class KeptBuffers:
    """A copy of all buffers of some models (BatchNorm's statistics, say), to go back to when a step must leave none."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        self.models = tuple(models)
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the buffers as they are now."""
        current = self._current()
        if [(kept.shape, kept.dtype) for kept in self._kept] != [(tensor.shape, tensor.dtype) for tensor in current]:
            self._kept = [tensor.clone() for tensor in current]
        elif current:
            torch._foreach_copy_(self._kept, current)

    @torch.no_grad()
    def restore(self) -> None:
        """Back to what they were at the last `keep`."""
        if self._kept:
            torch._foreach_copy_(self._current(), self._kept)

    def finite(self) -> bool:
        """Whether all numbers in the buffers are; a synchronisation point."""
        current = self._current()
        return not current or bool(torch.stack([tensor.isfinite().all() for tensor in current]).all())

    def _current(self) -> list[Tensor]:
        return [tensor for model in self.models for tensor in model.buffers()]


CAUSES = (
    "\n  common causes: a learning rate that is too high, values in the targets that are far off, or "
    "fp16; train.clip_norm and a warm-up help"
)
