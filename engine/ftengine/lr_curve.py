"""The curve of a learning-rate range test, and the rates that it suggests.

The smoothed loss after n steps is the exponential average of the losses, corrected for its start at zero,
``(1 - b) * sum(b**(n - i) * loss[i] for i in 1..n) / (1 - b**n)`` with b = 0.98, as in fastai's learning-rate finder
(Howard and Gugger 2020); the correction is Adam's (Kingma and Ba 2015). Rules read the smoothed loss without its first
tenth, which averages few batches, and, where the loss had begun to diverge, without its last five points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ftengine.errors import FtengineError

SMOOTHING = 0.98
"""Weight of what was before in the exponential average."""

DIVERGED = 4.0
"""The test is over when the smoothed loss exceeds so many times its minimum."""

LEAST_STEPS = 10
"""Steps that a test has at least."""

FEWEST = 5
"""Points that a rule needs."""

ADVICE = "valley"
"""The rule whose suggestion is the advice: it looks at a whole descent, `steepest` at the two points beside one."""

End = Literal["highest", "diverged", "not finite", "interrupted"]


@dataclass(frozen=True)
class Point:
    """One step: its learning rate, the loss before it moved the weights, and the smoothed loss with it.

    Both losses are NaN at the step that ended a test since its loss was not finite.
    """

    lr: float
    loss: float
    smoothed: float


@dataclass
class Curve:
    """A test of `steps` learning rates from `lowest` to `highest`, each the same factor above the one before.

    Raises FtengineError for a range that is none, and for less than ten steps.
    """

    lowest: float
    highest: float
    steps: int
    points: list[Point] = field(default_factory=list)
    end: End = "highest"
    _average: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest < math.inf:
            raise FtengineError(
                f"learning rates from {self.lowest:g} to {self.highest:g}: "
                "expected a lowest above 0, and a highest above that"
            )
        if self.steps < LEAST_STEPS:
            raise FtengineError(f"{self.steps} steps: expected {LEAST_STEPS} or more; 100 is usual")

    def rate(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        return float(self.lowest * (self.highest / self.lowest) ** (step / (self.steps - 1)))

    def add(self, loss: float) -> None:
        """The loss at the next rate; sets `end` where the test is over."""
        lr = self.rate(len(self.points))
        if not math.isfinite(loss):
            self.points.append(Point(lr, math.nan, math.nan))
            self.end = "not finite"
            return
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        smoothed = self._average / (1 - SMOOTHING ** (len(self.points) + 1))
        self.points.append(Point(lr, loss, smoothed))
        least = min(point.smoothed for point in self.points)
        if least > 0 and smoothed > DIVERGED * least:  # a loss that goes below zero has no such multiple
            self.end = "diverged"

    @property
    def over(self) -> bool:
        """Whether there is nothing more to measure."""
        return self.end != "highest" or len(self.points) == self.steps

    @property
    def reason(self) -> str:
        """Why the test ended where it did."""
        last = self.points[-1].lr if self.points else self.lowest
        return {
            "highest": f"all {self.steps} rates up to {last:.1e} were tried",
            "diverged": f"at {last:.1e} the smoothed loss exceeded {DIVERGED:g} times its minimum",
            "not finite": f"at {last:.1e} the loss was not finite",
            "interrupted": f"interrupted at {last:.1e}",
        }[self.end]

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the rules look at: rates, losses and smoothed losses, float64 [N]."""
        finite = [point for point in self.points if math.isfinite(point.loss)]
        kept = finite[len(finite) // 10 : -5 if self.end in ("diverged", "not finite") else None]
        rows = np.array([(point.lr, point.loss, point.smoothed) for point in kept], np.float64).reshape(-1, 3)
        return rows[:, 0], rows[:, 1], rows[:, 2]


@dataclass(frozen=True)
class Suggestion:
    """A rule's learning rate with the smoothed loss there, or neither and the `reason`."""

    rule: str
    lr: float | None = None
    loss: float | None = None
    reason: str = ""


def suggestions(curve: Curve) -> dict[str, Suggestion]:
    """What each rule makes of the curve, by name."""
    rates, losses, smoothed = curve.read()
    reason = _unusable(losses, smoothed)
    if reason:
        return {rule: Suggestion(rule, reason=reason) for rule in RULES}
    found = {rule: pick(rates, smoothed) for rule, pick in RULES.items()}
    return {rule: Suggestion(rule, float(rates[at]), float(smoothed[at])) for rule, at in found.items()}


def _unusable(losses: np.ndarray, smoothed: np.ndarray) -> str:
    """Why the curve suggests nothing; empty if it may."""
    if len(losses) < FEWEST:
        return f"too short: {len(losses)} points before the loss diverged, of which {FEWEST} are needed"
    fall = float((np.maximum.accumulate(smoothed) - smoothed).max())
    if fall <= 1e-9 * float(np.abs(smoothed).max()):  # but for rounding
        return "the smoothed loss never falls"
    # The differences of neighbours show the noise alone: what changes slowly hardly adds to their median. That of
    # |x - y| for two normal variables is 0.954 of their standard deviation. Where the loss rises again it explodes.
    noise = float(np.median(np.abs(np.diff(losses[: int(smoothed.argmin()) + 1])))) / 0.954
    if fall < noise:
        return f"the smoothed loss falls by {fall:.2g} at most, which is within the noise of a batch, {noise:.2g}"
    return ""


def steepest(rates: np.ndarray, losses: np.ndarray) -> int:
    """Where the loss has its most negative slope over the logarithm of the rate (central differences)."""
    return int(np.gradient(losses, np.log(rates)).argmin())


def valley(rates: np.ndarray, losses: np.ndarray) -> int:
    """The middle of the longest descent, as fastai's rule of this name has it.

    The longest strictly decreasing subsequence of the losses, of those of equal length the first, ends at point e and
    has l points; the stretch from e - l (or the first point) to e is cut in three, and the answer is one and a half
    thirds in. (``fastai.callback.schedule.valley``; the rule is Esri's, of ``arcgis.learn``.)
    """
    lengths = np.ones(len(losses), np.int64)
    for i in range(1, len(losses)):
        above = lengths[:i][losses[:i] > losses[i]]
        lengths[i] += above.max(initial=0)
    end = int(lengths.argmax())
    start = max(0, end - int(lengths[end]))
    third = (end - start) / 3
    return start + int(third) + int(third / 2)


RULES = {"steepest": steepest, "valley": valley}


def warnings(curve: Curve, advice: Suggestion) -> list[str]:
    """What makes the advice doubtful: it is, or might be, decided by where the range ends."""
    if advice.lr is None:
        return []
    found = []
    span = math.log(curve.highest / curve.lowest)
    place = math.log(advice.lr / curve.lowest) / span
    smoothed = curve.read()[2]
    if place < 0.1:
        found.append(f"the advice is at the lower edge of the range: try a lower --min than {curve.lowest:g}")
    if place > 0.9:
        found.append(f"the advice is at the upper edge of the range: try a higher --max than {curve.highest:g}")
    elif curve.end == "highest" and int(smoothed.argmin()) == len(smoothed) - 1:
        found.append(f"the loss still falls at the highest rate: try a higher --max than {curve.highest:g}")
    return found
