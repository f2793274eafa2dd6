"""Which evaluation is the best so far, and when there is no use in going on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftengine.config_train import EarlyStopping
from ftengine.evaluate import Evaluation
from ftengine.finite import with_nan, without_nan


@dataclass
class Best:
    """The best evaluation so far.

    `mixed` is the share of the end in it, where it is a mixture of the weights of a run's start and end.
    `since` counts the evaluations since `reference`, the last value that was better by early stopping's `min_delta`.
    """

    value: float = math.nan
    step: int = 0
    epoch: int = 0
    values: dict[str, float] = field(default_factory=dict)
    since: int = 0
    reference: float = math.nan
    mixed: float | None = None

    @property
    def checkpoint(self) -> str:
        """The name of the folder of its checkpoint."""
        return f"step-{self.step:08d}" + ("" if self.mixed is None else "-mixed")

    def state(self) -> dict[str, Any]:
        """As JSON data; NaN is null."""
        return {**without_nan(vars(self)), "values": without_nan(self.values)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Best:
        """What `state` was made from."""
        return cls(**{**with_nan(state), "values": with_nan(state["values"]), "mixed": state["mixed"]})


class Judge:
    """`mode` says whether larger values of what is monitored are better (``max``) or smaller ones (``min``).

    `history` holds every monitored value so far, negated where less is better, for schedules that react to it; `latest`
    is the last evaluation, however good.
    """

    def __init__(self, mode: str, stopping: EarlyStopping | None) -> None:
        self.mode = mode
        self.stopping = stopping
        self.best = Best()
        self.latest = Best()
        self.history: list[float] = []

    def __call__(self, evaluation: Evaluation, step: int, epoch: int) -> bool:
        """Whether an evaluation after `step` steps and `epoch` epochs is the best so far.

        One that is not finite never is: neither a value of NaN nor, whatever the metric says of it, a loss of NaN.
        """
        best, value = self.best, self.value(evaluation)
        self.history.append(-value if self.mode == "min" else value)
        self.latest = Best(value, step, epoch, dict(evaluation.values))
        is_best = self.gain(value, best.value) > 0
        if is_best:
            self.adopt(self.latest)
        if self.gain(value, best.reference) > (self.stopping.min_delta if self.stopping else 0.0):
            best.reference, best.since = value, 0
        else:
            best.since += 1
        return is_best

    @staticmethod
    def value(evaluation: Evaluation) -> float:
        """What an evaluation is judged by: the monitored value, or NaN where the loss is not finite."""
        return evaluation.monitored if math.isfinite(evaluation.values.get("loss", 0.0)) else math.nan

    def gain(self, value: float, before: float) -> float:
        """How much better `value` is than `before`: infinitely, if there was none; never, if it is not finite."""
        if not math.isfinite(value):
            return -math.inf
        if math.isnan(before):
            return math.inf
        return before - value if self.mode == "min" else value - before

    def patience_is_over(self) -> bool:
        """Whether early stopping ends the run here."""
        return self.stopping is not None and self.best.since >= self.stopping.patience

    def adopt(self, found: Best) -> None:
        """Take `found` for the best; what early stopping compares with stays."""
        best = self.best
        best.value, best.step, best.epoch, best.mixed = found.value, found.step, found.epoch, found.mixed
        best.values = dict(found.values)

    def state(self) -> dict[str, Any]:
        """As JSON data; NaN is null."""
        history = [None if value != value else value for value in self.history]
        return {"best": self.best.state(), "latest": self.latest.state(), "history": history}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.best, self.latest = Best.of_state(state["best"]), Best.of_state(state["latest"])
        self.history = [math.nan if value is None else value for value in state["history"]]
