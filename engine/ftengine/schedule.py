"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to replay on resume.

Each gives the factor by which every parameter group's own learning rate is multiplied. With `warmup_epochs` the
factor first rises linearly from `warmup_start` to 1, and the schedule proper runs over the steps that remain: its
epochs are counted from the end of the warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from ftengine.config_train import TrainConfig
from ftengine.schedule_base import PER, Per, Schedule

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Exponential",
    "MultiStep",
    "OneCycle",
    "Plateau",
    "Polynomial",
    "Schedule",
    "Step",
]


class Constant(Schedule):
    """The same rate throughout."""

    summary = "constant after the warm-up"

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return 1.0


class Step(Schedule):
    """Multiplied by `gamma` every `every_epochs` epochs; by default twice, so that each value lasts a third."""

    summary = "times `gamma` every `every_epochs` epochs"
    per: Per = Field("epoch", description=PER)
    every_epochs: int | None = Field(
        None, ge=1, description="Epochs between two drops; default: a third of those after the warm-up, at least 1."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop.")

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        if self.every_epochs is not None:
            return float(self.gamma ** (step // (self.every_epochs * steps_per_epoch)))
        return float(self.gamma ** int(step / max(steps_per_epoch, steps / 3)))

    def marks(self) -> Iterator[tuple[str, str, float]]:
        if self.every_epochs is not None:
            yield "every_epochs", "a first drop after", self.every_epochs


class MultiStep(Schedule):
    """Multiplied by `gamma` at each milestone.

    The default milestones are those of detection's "1x" schedule, 60,000 and 80,000 of 90,000 steps (He et al. 2017,
    Detectron).
    """

    summary = "times `gamma` at each of `milestones`"
    per: Per = Field("epoch", description=PER)
    milestones: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = Field(
        None,
        description="Epochs, counted from the end of the warm-up, at which it drops, ascending; default: two thirds "
        "and eight ninths of them.",
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop.")

    @model_validator(mode="after")
    def _ascending(self) -> MultiStep:
        for before, after in pairwise(self.milestones or ()):
            if after <= before:
                raise ValueError(f"milestones must ascend, got {after:g} after {before:g}")
        return self

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        if self.milestones is None:
            return float(self.gamma ** ((3 * step >= 2 * steps) + (9 * step >= 8 * steps)))
        # A milestone within a step counts from the next one; 1e-6 of a step is rounding.
        return float(self.gamma ** sum(step + 1e-6 >= epochs * steps_per_epoch for epochs in self.milestones))

    def marks(self) -> Iterator[tuple[str, str, float]]:
        for epochs in self.milestones or ():
            yield "milestones", "a drop after", epochs


class Exponential(Schedule):
    """Multiplied by `gamma` after every epoch; with ``per: step`` by as much, in even parts."""

    summary = "times `gamma` every epoch"
    per: Per = Field("epoch", description=PER)
    gamma: float = Field(0.95, gt=0, le=1, description="Factor of each epoch.")

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return float(self.gamma ** (step / steps_per_epoch))


class Cosine(Schedule):
    """Half a cosine from 1 to `final` over the run, or again and again (Loshchilov and Hutter 2017, SGDR).

    With `restart_epochs` the first half cosine takes that many epochs and each further one `restart_mult` times as
    many as the one before it; the run ends wherever it then is.
    """

    summary = "half a cosine down to `final`, or several"
    final: float = Field(0.0, ge=0, le=1, description="Factor at the end.")
    restart_epochs: float | None = Field(None, gt=0, description="Epochs of the first cycle; default: no restarts.")
    restart_mult: int = Field(1, ge=1, description="Length of each cycle in lengths of the one before it.")

    @model_validator(mode="after")
    def _restarts(self) -> Cosine:
        if self.restart_epochs is None and self.restart_mult != 1:
            raise ValueError("restart_mult needs restart_epochs")
        return self

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        if self.restart_epochs is not None:
            steps = max(1, round(self.restart_epochs * steps_per_epoch))
            if self.restart_mult == 1:
                step %= steps
            while step >= steps:
                step -= steps
                steps *= self.restart_mult
        return _half_cosine(1.0, self.final, min(step, steps) / steps)

    def marks(self) -> Iterator[tuple[str, str, float]]:
        if self.restart_epochs is not None:
            yield "restart_epochs", "a restart after", self.restart_epochs


class Polynomial(Schedule):
    """From 1 to `final` as a power of the part that is left: (1 - step / steps) ** power (Liu et al. 2015, ParseNet).

    A `power` of 1 is a straight line; 0.9 is customary in segmentation (Chen et al. 2018, DeepLab).
    """

    summary = "a straight line, or a power of it, down to `final`"
    power: float = Field(1.0, gt=0, description="Power of the part of the run that is left.")
    final: float = Field(0.0, ge=0, le=1, description="Factor at the end.")

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return float(self.final + (1 - self.final) * (1 - min(step, steps) / steps) ** self.power)


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
            return _half_cosine(first, 1.0, step / rise if rise else 1.0)
        return _half_cosine(1.0, last, min(1.0, (step - rise) / max(1e-9, steps - 1 - rise)))


class Plateau(Schedule):
    """Multiplied by `gamma` when the monitored value has not improved in more than `patience` evaluations.

    As torch's ReduceLROnPlateau with an absolute threshold: the count begins anew after a drop, the best value stays.
    It changes after evaluations only, whatever `per` says; those during the warm-up count.
    """

    summary = "times `gamma` when the monitored value no longer improves"
    gamma: float = Field(0.1, gt=0, lt=1, description="Factor of each drop.")
    patience: int = Field(2, ge=0, description="Evaluations without an improvement that are borne; one more is a drop.")
    min_delta: float = Field(0.0, ge=0, description="What a value must be better by, to be an improvement.")
    min_factor: float = Field(0.0, ge=0, le=1, description="Smallest factor.")

    def factor(self, step: int, steps: int, steps_per_epoch: int, history: Sequence[float] = ()) -> float:
        return super().factor(step, steps, steps_per_epoch) * self.after(history)

    def shape(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return 1.0

    def after(self, history: Sequence[float]) -> float:
        """The factor, `min_factor` … 1, after evaluations with these values; larger is better, NaN never is."""
        factor, best, bad = 1.0, -math.inf, 0
        for value in history:
            if value > best + self.min_delta:
                best, bad = value, 0
                continue
            bad += 1
            if bad > self.patience:
                factor, bad = max(factor * self.gamma, self.min_factor), 0
        return factor

    def problems(self, train: TrainConfig) -> Iterator[tuple[str, str]]:
        yield from super().problems(train)
        count = math.ceil(train.epochs / train.eval_every)
        # The first evaluation is an improvement, and after the last one there is nothing left to train.
        if self.patience + 3 > count:
            fewer = f"give at most {count - 3}, or " if count >= 3 else "give "
            yield (
                "patience",
                f"a patience of {self.patience} never ends in a run of {train.epochs} epochs with {count} evaluations: "
                f"{fewer}at least {self.patience + 3} evaluations (`train.epochs`, `train.eval_every`)",
            )
        stopping = train.early_stopping
        if stopping is not None and stopping.min_delta >= self.min_delta and stopping.patience <= self.patience + 1:
            yield (
                "patience",
                f"`train.early_stopping` with a patience of {stopping.patience} ends the run before this one, "
                f"{self.patience}, lets the rate drop: give it at least {self.patience + 2}",
            )


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "multi_step": MultiStep,
    "exponential": Exponential,
    "cosine": Cosine,
    "polynomial": Polynomial,
    "one_cycle": OneCycle,
    "plateau": Plateau,
}
