"""What all learning-rate schedules have in common: the warm-up, changes by step or epoch, and the run's length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from ftengine.config_train import TrainConfig
from ftengine.plugin import Options

Per = Literal["step", "epoch"]
PER = "When the factor changes: at each step, or at the first of each epoch. The warm-up always rises by the step."


class Schedule(Options):
    """What every schedule has in common.

    With ``per: epoch`` a factor is that of the epoch's first step, also where a warm-up ended within the epoch.
    """

    summary: ClassVar[str] = ""
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs of linear warm-up, before the schedule proper.")
    warmup_start: float = Field(0.01, ge=0, le=1, description="Factor at the first step of the warm-up.")
    per: Per = Field("step", description=PER)

    def factor(self, step: int, steps: int, steps_per_epoch: int, history: Sequence[float] = ()) -> float:
        """The factor, 0 … 1, at `step`, from 0, of `steps`.

        `history`: the monitored value of each evaluation before this step, in order, larger being better; NaN where
        there was none.
        """
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            ramp = self.warmup_start + (1 - self.warmup_start) * step / warmup
            return ramp * self.shape(0, max(1, steps - warmup), steps_per_epoch)
        if self.per == "epoch":
            step = max(warmup, step // steps_per_epoch * steps_per_epoch)
        return self.shape(step - warmup, max(1, steps - warmup), steps_per_epoch)

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor after the warm-up, with `step` and `steps` counted from its end."""
        raise NotImplementedError

    def problems(self, train: TrainConfig) -> Iterator[tuple[str, str]]:
        """What cannot be meant for a run of this length: an option, and a sentence."""
        if self.warmup_epochs >= train.epochs:
            yield (
                "warmup_epochs",
                f"a warm-up of {self.warmup_epochs:g} epochs in a run of {train.epochs}: give less than "
                f"{train.epochs}, or `train.epochs` of at least {math.floor(self.warmup_epochs) + 1}",
            )
            return
        by_epoch = self.per == "epoch"  # a change waits for the next epoch to begin
        for option, what, epochs in self.marks():
            at = self.warmup_epochs + epochs
            at = math.ceil(at - 1e-9) if by_epoch else at
            if at < train.epochs:
                continue
            after = f", of which the warm-up takes {self.warmup_epochs:g}" if self.warmup_epochs else ""
            most = train.epochs - self.warmup_epochs - by_epoch
            bound = f"{'at most' if by_epoch else 'less than'} {most:g}, or " if most > 0 else ""
            longer = f"`train.epochs` of at least {math.floor(at) + 1}"
            yield (
                option,
                f"{what} {epochs:g} epochs never comes in a run of {train.epochs}{after}: give {bound}{longer}",
            )

    def marks(self) -> Iterator[tuple[str, str, float]]:
        """When something must happen: the option, what it says, and the epochs after the warm-up."""
        yield from ()
