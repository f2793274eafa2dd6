"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to replay on resume.

Each gives the factor by which every parameter group's own learning rate is multiplied. With `warmup_epochs` the
factor first rises linearly from `warmup_start` to 1, and the schedule proper runs over the steps that remain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from ftengine.config_train import TrainConfig
from ftengine.plugin import Options


class Schedule(Options):
    """What every schedule has in common."""

    summary: ClassVar[str] = ""
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs of linear warm-up, before the schedule proper.")
    warmup_start: float = Field(0.01, ge=0, le=1, description="Factor at the first step of the warm-up.")

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor at `step`, from 0, of `steps`."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return self.warmup_start + (1 - self.warmup_start) * step / warmup
        return self.shape(step - warmup, max(1, steps - warmup), steps_per_epoch)

    def problems(self, train: TrainConfig) -> Iterator[tuple[str, str]]:
        """What cannot be meant for a run of this length: an option, and a sentence."""
        if self.warmup_epochs >= train.epochs:
            yield "warmup_epochs", f"a warm-up of {self.warmup_epochs:g} epochs in a run of {train.epochs}"

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor after the warm-up, with `step` and `steps` counted from its end."""
        raise NotImplementedError


class Constant(Schedule):
    """The same rate throughout."""

    summary = "constant after the warm-up"

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1 to `final` over the run, a value a step (Loshchilov and Hutter 2017, no restarts)."""

    summary = "half a cosine down to `final`"
    final: float = Field(0.0, ge=0, le=1, description="Factor at the end.")

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


class Step(Schedule):
    """Multiplied by `gamma` every `every_epochs` epochs."""

    summary = "times `gamma` every `every_epochs` epochs"
    every_epochs: int = Field(30, ge=1, description="Epochs between two drops.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop.")

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return float(self.gamma ** (step // (self.every_epochs * steps_per_epoch)))


class Exponential(Schedule):
    """Multiplied by `gamma` after every epoch."""

    summary = "times `gamma` every epoch"
    gamma: float = Field(0.95, gt=0, le=1, description="Factor of each epoch.")

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return float(self.gamma ** (step // steps_per_epoch))


class OneCycle(Schedule):
    """Up and down again in two half cosines (Smith and Topin 2019): the optimizer's `lr` is the peak.

    The factor starts at 1 / `div_factor`, is 1 after `pct_start` of the steps, and ends at
    1 / (`div_factor` * `final_div_factor`). Momentum is left alone.
    """

    summary = "up to the optimizer's lr and down again"
    pct_start: float = Field(0.3, gt=0, lt=1, description="Part of the steps that the rise takes.")
    div_factor: float = Field(25.0, ge=1, description="lr / first rate.")
    final_div_factor: float = Field(1e4, ge=1, description="First rate / last rate.")

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        first = 1 / self.div_factor
        last = first / self.final_div_factor
        rise = self.pct_start * steps - 1
        if step <= rise:
            return _half_cosine(first, 1.0, step / rise)
        return _half_cosine(1.0, last, min(1.0, (step - rise) / max(1e-9, steps - 1 - rise)))


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "step": Step,
    "exponential": Exponential,
    "one_cycle": OneCycle,
}
